"""The agent with a fault in it: ``python cni_faults.py ORDER agent ...``.

The file ORDER names a step of ADD and what happens there once: ``link after error`` raises what the kernel would,
``link after kill`` ends the process as SIGKILL does. Everything else is the real agent.
"""

import errno
import functools
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from hybridnet.agent import wiring
from hybridnet.agent.sandbox import SandboxStore
from hybridnet.kernel.applier import KernelApplier
from hybridnet.kernel.errors import KernelError, NftError
from hybridnet.kernel.nftables import NftApplier

STEPS: dict[str, tuple[Any, str, Exception]] = {
    "record": (SandboxStore, "save", OSError(errno.ENOSPC, "no space left on device")),
    "pair": (wiring, "create_veth", KernelError(errno.ENOBUFS, "create veth device")),
    "host side": (wiring, "change_link", KernelError(errno.ENOBUFS, "change device")),
    "pod side": (wiring, "set_route", KernelError(errno.ENOMEM, "write route")),
    "link": (wiring, "wire", KernelError(errno.EIO, "make link")),
    "objects": (KernelApplier, "apply", KernelError(errno.ENOMEM, "write routes")),
    "elements": (NftApplier, "set_elements", NftError(errno.EBUSY, "write elements")),
}
"""Step to the function that does it and what it may raise."""


def install(order: Path) -> None:
    """Put the faults in."""
    for step, (owner, name, error) in STEPS.items():
        setattr(owner, name, _faulty(getattr(owner, name), step, error, order))


def _faulty(function: Callable[..., Any], step: str, error: Exception, order: Path) -> Callable[..., Any]:
    @functools.wraps(function)
    def wrapper(*arguments: Any, **options: Any) -> Any:
        scope = next((a for a in arguments if isinstance(a, str)), "")
        if scope == "node" or scope.startswith("peer/"):
            return function(*arguments, **options)
        _fail(order, f"{step} before", error)
        result = function(*arguments, **options)
        _fail(order, f"{step} after", error)
        return result

    return wrapper


def _fail(order: Path, here: str, error: Exception) -> None:
    try:
        place, _, action = order.read_text().rpartition(" ")
    except FileNotFoundError:
        return
    if place != here:
        return
    order.unlink()
    if action == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    raise error


if __name__ == "__main__":
    install(Path(sys.argv.pop(1)))
    from hybridnet.cli.main import main

    main()
