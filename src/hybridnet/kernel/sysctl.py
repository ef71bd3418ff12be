"""Sysctls by file: /proc/sys shows the network namespace of the calling thread.

Settings of a veth of ours travel with the link message instead (link.set_devconf); this is for
the rest. A knob that the kernel lacks is an error unless it is optional: several exist in the initial
namespace alone (``net/ipv4/neigh/default/gc_thresh1``).
"""

import errno as codes
from pathlib import Path

from hybridnet.kernel.errors import ObjectNotFound, kernel_error
from hybridnet.kernel.namespace import Namespace
from hybridnet.plan.state import Sysctl

ROOT = Path("/proc/sys")


def read(path: str, namespace: Namespace | None = None) -> str:
    """The value of ``net/...`` without the final newline. ObjectNotFound, NotPermitted."""
    return namespace.run(lambda: _read(path)) if namespace else _read(path)


def write(path: str, value: str, namespace: Namespace | None = None) -> None:
    """Set ``net/...``. ObjectNotFound, NotPermitted, InvalidRequest."""
    if namespace:
        namespace.run(lambda: _write(path, value))
    else:
        _write(path, value)


def ensure(sysctl: Sysctl, namespace: Namespace | None = None) -> bool:
    """Write the value unless it is there; whether it was written. Absence of an optional knob is no error."""
    return namespace.run(lambda: _ensure(sysctl)) if namespace else _ensure(sysctl)


def current(sysctl: Sysctl, namespace: Namespace | None = None) -> str | None:
    """The value that *sysctl*'s knob has; None when there is no such knob."""
    try:
        return read(sysctl.path, namespace)
    except ObjectNotFound:
        return None


def same(have: str, want: str) -> bool:
    """Whether two values are equal to the kernel, which separates numbers by tabs."""
    return have.split() == want.split()


def _ensure(sysctl: Sysctl) -> bool:
    try:
        if same(_read(sysctl.path), sysctl.value):
            return False
        _write(sysctl.path, sysctl.value)
    except ObjectNotFound:
        if not sysctl.optional:
            raise
        return False
    return True


def _read(path: str) -> str:
    try:
        return (ROOT / path).read_text().strip()
    except OSError as error:
        raise kernel_error(error.errno or codes.EIO, f"read sysctl {path}") from error


def _write(path: str, value: str) -> None:
    try:
        with (ROOT / path).open("r+") as file:  # "w" would create and truncate
            file.write(value)
    except OSError as error:
        raise kernel_error(error.errno or codes.EIO, f"set sysctl {path} to {value}") from error
