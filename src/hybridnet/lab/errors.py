"""What can go wrong in the lab, told to the person at the terminal.

LabError                  base: one line that ends with what to do next
+-- BinaryMissing         a Kubernetes binary is neither found nor buildable
|   +-- BuildFailed       the Go build of it stopped with an error
+-- ProgramMissing        a program of the operating system is not installed
+-- ProcessDied           a process of the lab ended, with the last lines of its log
+-- NotReady              something did not become ready in time
+-- LabExists             there is a lab of that name already
+-- LabNotFound           there is none
+-- InvalidName           a lab cannot be called that
+-- CleanupFailed         something of a lab could not be removed
+-- CommandFailed         a helper command (ctr, kubectl, mount) failed, with its output
"""


class LabError(Exception):
    """Base of everything that the lab raises."""


class BinaryMissing(LabError):
    """A Kubernetes binary is neither in KUBEBUILDER_ASSETS nor in the cache, and cannot be built here."""


class BuildFailed(BinaryMissing):
    """The Go build stopped; the message carries its last lines."""


class ProgramMissing(LabError):
    """A program that Debian packages is not installed."""


class ProcessDied(LabError):
    """A process ended although it should serve."""


class NotReady(LabError):
    """Waited in vain."""


class LabExists(LabError):
    """A lab of this name is there, or the remains of one."""


class LabNotFound(LabError):
    """No lab of this name is there."""


class InvalidName(LabError):
    """Names go into device names (15 bytes) and Kubernetes objects."""


class CleanupFailed(LabError):
    """Something of the lab is still there after the deadline."""


class CommandFailed(LabError):
    """A command returned an error."""
