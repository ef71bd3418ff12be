"""What the kernel may refuse, as typed exceptions.

::

    KernelError                  anything the kernel refused; carries errno and the kernel's own explanation
     ├── DeviceNotFound          ENODEV: no such device in this namespace
     ├── AlreadyExists           EEXIST: somebody else's object is in the way
     ├── ObjectNotFound          ENOENT, ESRCH, EADDRNOTAVAIL: the object is not there
     ├── NotPermitted            EPERM, EACCES: missing capability or read-only /proc/sys
     ├── NotSupported            EOPNOTSUPP, EAFNOSUPPORT, EPROTONOSUPPORT: the kernel lacks the feature
     ├── InvalidRequest          EINVAL, ERANGE: the request makes no sense to the kernel
     ├── Unreachable             ENETUNREACH, EHOSTUNREACH: the gateway is not reachable; ENETDOWN: device down
     ├── DumpInterrupted         a dump changed under our hands on every attempt
     ├── NamespaceNotFound       the network namespace is gone
     ├── ConflictingWant         two scopes want one object differently: nothing was written
     └── NftError                nftables refused a transaction: nothing of it was applied

A message says what was attempted, what the kernel answered and what an operator should look at.
"""

import errno as codes
import os
from typing import ClassVar


class KernelError(Exception):
    """The kernel refused *what* with *errno*; *detail* is its extended acknowledgement, if it sent one."""

    advice: ClassVar[str] = ""

    def __init__(self, errno: int, what: str, detail: str = "") -> None:
        self.errno = errno
        self.what = what
        self.detail = detail
        super().__init__(errno, what, detail)

    def __str__(self) -> str:
        text = f"{self.what}: {os.strerror(self.errno)}" if self.errno else self.what
        if self.detail:
            text += f" ({self.detail})"
        return f"{text}; {self.advice}" if self.advice else text


class DeviceNotFound(KernelError):
    """No such device in this namespace."""

    advice = "check the device's name with 'ip link' in this network namespace"


class AlreadyExists(KernelError):
    """An object that is not ours has the same identity."""

    advice = "something else owns it: remove it, or configure the node to use another one"


class ObjectNotFound(KernelError):
    """The object is not there."""


class NotPermitted(KernelError):
    """The process lacks a capability, or /proc/sys is read-only."""

    advice = "run with CAP_NET_ADMIN (a privileged container) and a writable /proc/sys"


class NotSupported(KernelError):
    """The kernel lacks the feature."""

    advice = "check that the kernel has the needed module (vxlan, nf_tables, IPv6)"


class InvalidRequest(KernelError):
    """The kernel says that the request makes no sense."""


class Unreachable(KernelError):
    """A gateway is not on the device's segment, or the device is down."""

    advice = "check that the device is up and that the gateway is in its subnet"


class DumpInterrupted(KernelError):
    """A table changed during every attempt to read it."""

    advice = "the node's network configuration changes constantly: look for a program that rewrites it"


class NamespaceNotFound(KernelError):
    """The network namespace is gone."""


class ConflictingWant(KernelError):
    """Two scopes want one object with different values; the first one stays."""


class NftError(KernelError):
    """libnftables refused a transaction; *what* names it, *detail* is nft's message with its line."""


_CLASSES: dict[int, type[KernelError]] = {
    codes.ENODEV: DeviceNotFound,
    codes.ENXIO: DeviceNotFound,
    codes.EEXIST: AlreadyExists,
    codes.ENOENT: ObjectNotFound,
    codes.ESRCH: ObjectNotFound,
    codes.EADDRNOTAVAIL: ObjectNotFound,
    codes.EPERM: NotPermitted,
    codes.EACCES: NotPermitted,
    codes.EROFS: NotPermitted,
    codes.EOPNOTSUPP: NotSupported,
    codes.EAFNOSUPPORT: NotSupported,
    codes.EPROTONOSUPPORT: NotSupported,
    codes.EINVAL: InvalidRequest,
    codes.ERANGE: InvalidRequest,
    codes.ENETUNREACH: Unreachable,
    codes.EHOSTUNREACH: Unreachable,
    codes.ENETDOWN: Unreachable,
}


def kernel_error(errno: int, what: str, detail: str = "") -> KernelError:
    """The exception that stands for *errno* (positive)."""
    return _CLASSES.get(errno, KernelError)(errno, what, detail)
