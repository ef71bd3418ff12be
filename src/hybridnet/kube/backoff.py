"""Growing pauses while the API server does not answer, with a log line now and then.

The longest pause is short, so that a returned API server is noticed quickly; jitter keeps a thousand agents from
coming back at the same moment.
"""

import asyncio
import random
import time

import structlog

from hybridnet.kube.errors import ApiError

log = structlog.get_logger(__name__)

FIRST_SECONDS = 0.1
LONGEST_SECONDS = 5.0
QUIET_SECONDS = 60.0
"""The same trouble is told again after this time."""


class Backoff:
    """The pauses of one activity, called *what* in the log."""

    def __init__(self, what: str, *, first: float = FIRST_SECONDS, longest: float = LONGEST_SECONDS) -> None:
        self._what = what
        self._first = first
        self._longest = longest
        self._next = first
        self.trouble = ""
        """What the last attempt failed with; empty when it works."""
        self._since: float | None = None
        self._told = ("", 0.0)

    def recovered(self) -> None:
        """It seems to work again; pauses stay long until :meth:`reset`, for it may fail at once."""
        self.trouble = ""
        if self._since is not None:
            log.info("works again", what=self._what, seconds=round(time.monotonic() - self._since, 1))
            self._since, self._told = None, ("", 0.0)

    def reset(self) -> None:
        """It works: the next pause is the first one."""
        self.recovered()
        self._next = self._first

    async def pause(self, error: ApiError | None = None) -> None:
        """Wait before the next attempt; with *error* it counts as trouble and is logged."""
        if error is not None:
            self._tell(error)
        seconds = self._next * random.uniform(0.5, 1.0)  # noqa: S311  (spreads reconnections)
        self._next = min(self._next * 2, self._longest)
        await asyncio.sleep(seconds)

    def _tell(self, error: ApiError) -> None:
        now = time.monotonic()
        self.trouble = error.message
        if self._since is None:
            self._since = now
        reason, told = self._told
        if reason != error.reason or now - told >= QUIET_SECONDS:
            log.warning("failed, trying again", what=self._what, error=error.message)
            self._told = error.reason, now
