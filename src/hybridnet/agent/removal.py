"""Deleting pod links without waiting for the kernel's housekeeping.

The system call that deletes a veth pair takes 16 ms and more, nearly all of it after the pair has left the
kernel's tables: it waits for RCU before it frees memory. The kernel tells that a device is gone when it is
(RTM_DELLINK), so the caller goes on then, two to three milliseconds after it asked, and the call ends on a
thread of its own. When the notification was lost, the end of the call is waited for: later, never wrong.
"""

import asyncio
from concurrent.futures import ThreadPoolExecutor

import structlog

from hybridnet.agent import wiring
from hybridnet.kernel.errors import KernelError

log = structlog.get_logger(__name__)

_AT_ONCE = 32
"""Calls that sleep in the kernel cost a stack each, and share its waiting."""


class LinkRemover:
    """Deletes links. All methods are called on the event loop."""

    def __init__(self) -> None:
        self._threads = ThreadPoolExecutor(max_workers=_AT_ONCE, thread_name_prefix="unwire")
        self._expected: dict[str, asyncio.Event] = {}

    def gone(self, device: str) -> None:
        """The kernel has told that *device* is no more."""
        if (expected := self._expected.get(device)) is not None:
            expected.set()

    async def remove(self, device: str) -> None:
        """Delete a pod's link by its host side; back when nobody can see it. No error when it is gone: logged."""
        gone = self._expected[device] = asyncio.Event()
        deletion = asyncio.get_running_loop().run_in_executor(self._threads, _delete, device)
        notice = asyncio.ensure_future(gone.wait())
        try:
            await asyncio.wait((deletion, notice), return_when=asyncio.FIRST_COMPLETED)
        finally:
            notice.cancel()
            if self._expected.get(device) is gone:
                del self._expected[device]

    def close(self) -> None:
        """Wait for the calls that have not ended."""
        self._threads.shutdown(wait=True)


def _delete(device: str) -> None:
    try:
        wiring.unwire(device)
    except KernelError as error:
        log.error("link not deleted", device=device, error=str(error))
