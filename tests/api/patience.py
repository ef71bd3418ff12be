"""Waiting for what must become true, in tests."""

import asyncio
from collections.abc import Awaitable, Callable

SECONDS = 60.0
"""After this a test gives up; far more than anything takes."""


async def until(condition: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(SECONDS):
        while True:
            if await condition():
                return
            await asyncio.sleep(0.05)
