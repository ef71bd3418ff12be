"""Network namespaces: open, enter for one call, create and delete by name as ``ip netns`` does.

A namespace is held by a file descriptor, so it stays valid when its name or its last process goes. Entering
concerns the calling thread alone and lasts for one function call: sockets and libnftables contexts made inside
stay in that namespace for ever, so nobody needs to enter twice. A forked helper process per namespace was the
alternative; it costs milliseconds, setns costs microseconds.
"""

import contextlib
import ctypes
import errno as codes
import fcntl
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Self, TypeVar

from hybridnet.kernel.errors import NamespaceNotFound, kernel_error

T = TypeVar("T")

RUN_NETNS = Path("/run/netns")

_CLONE_NEWNET = 0x40000000
_MS_BIND, _MS_REC, _MS_SHARED = 0x1000, 0x4000, 1 << 20
_MNT_DETACH = 2
_NS_GET_NSTYPE = 0xB703  # ioctl_ns(2)
_libc = ctypes.CDLL(None, use_errno=True)


def _call(what: str, result: int) -> None:
    if result != 0:
        raise kernel_error(ctypes.get_errno(), what)


def _setns(fd: int) -> None:
    _call("enter network namespace", _libc.setns(fd, _CLONE_NEWNET))


class Namespace:
    """An open network namespace. Usable from any thread; close it, or use it as a context manager."""

    def __init__(self, fd: int) -> None:
        """Own *fd*, an open descriptor of a network namespace."""
        self.fd = fd
        self.inode = os.fstat(fd).st_ino

    @classmethod
    def open(cls, path: str | Path) -> Self:
        """Open the namespace at *path*: ``/run/netns/NAME``, ``/proc/PID/ns/net``.

        Raises NamespaceNotFound when it is gone, or when the file is not (any more) a namespace.
        """
        try:
            fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except (FileNotFoundError, NotADirectoryError, ProcessLookupError) as error:
            raise NamespaceNotFound(error.errno or codes.ENOENT, f"open network namespace {path}") from error
        except OSError as error:
            raise kernel_error(error.errno or codes.EIO, f"open network namespace {path}") from error
        if not _is_network_namespace(fd):
            os.close(fd)
            raise NamespaceNotFound(codes.EINVAL, f"{path} is not a network namespace")
        return cls(fd)

    @classmethod
    def current(cls) -> Self:
        """The namespace of the calling thread."""
        return cls.open("/proc/thread-self/ns/net")

    def run(self, function: Callable[[], T]) -> T:
        """Call *function* with the calling thread inside this namespace, and return its result.

        The thread is back in its former namespace afterwards, whatever happens. *function* must not hand
        control to other code of the thread (no await): it would run in the wrong namespace.
        """
        before = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        try:
            _setns(self.fd)
            try:
                return function()
            finally:
                _setns(before)
        finally:
            os.close(before)

    def close(self) -> None:
        """Give the descriptor back; twice is no error."""
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _is_network_namespace(fd: int) -> bool:
    """Whether *fd* is one: a name below /run/netns outlives its mount as an empty file."""
    try:
        return fcntl.ioctl(fd, _NS_GET_NSTYPE) == _CLONE_NEWNET
    except OSError:
        return False


def create_named(name: str) -> Path:
    """Create a namespace and pin it at ``/run/netns/NAME``; its loopback is down. AlreadyExists."""
    path = RUN_NETNS / name
    _share_run_netns()
    try:
        os.close(os.open(path, os.O_RDONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0))
    except FileExistsError as error:
        raise kernel_error(codes.EEXIST, f"create network namespace {name}") from error
    try:
        with ThreadPoolExecutor(max_workers=1) as executor:  # its thread ends with what it has unshared
            executor.submit(_unshare_and_pin, path).result()
    except BaseException:
        path.unlink()
        raise
    return path


def delete_named(name: str) -> None:
    """Unpin a namespace; no error when it is gone. It lives on while processes or descriptors hold it."""
    path = RUN_NETNS / name
    with contextlib.suppress(FileNotFoundError):
        _libc.umount2(os.fsencode(path), _MNT_DETACH)
        path.unlink()


def _share_run_netns() -> None:
    """Make /run/netns a shared mount, so that a later unmount reaches every mount namespace."""
    RUN_NETNS.mkdir(parents=True, exist_ok=True)
    target = os.fsencode(RUN_NETNS)
    if _libc.mount(b"", target, b"none", _MS_SHARED | _MS_REC, None) == 0:
        return
    _call(f"bind {RUN_NETNS}", _libc.mount(target, target, b"none", _MS_BIND | _MS_REC, None))
    _call(f"share {RUN_NETNS}", _libc.mount(b"", target, b"none", _MS_SHARED | _MS_REC, None))


def _unshare_and_pin(path: Path) -> None:
    _call("create network namespace", _libc.unshare(_CLONE_NEWNET))
    source = b"/proc/thread-self/ns/net"
    _call(f"pin network namespace at {path}", _libc.mount(source, os.fsencode(path), b"none", _MS_BIND, None))
