"""Work queues: one key at a time, nothing lost, failures later and later."""

import asyncio
from collections.abc import Awaitable, Callable

from hybridnet.kube.errors import Conflict, Unavailable
from hybridnet.kube.queue import LONGEST_PAUSE_SECONDS, WorkQueue


async def work(queue: WorkQueue[str], reconcile: Callable[[str], Awaitable[None]], workers: int = 4) -> None:
    """Run workers until the queue has nothing left."""
    task = asyncio.create_task(queue.run_workers(workers, reconcile))
    while len(queue):  # noqa: ASYNC110
        await asyncio.sleep(0.001)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


def test_a_key_that_waits_is_worked_on_once() -> None:
    async def scenario() -> list[str]:
        queue: WorkQueue[str] = WorkQueue()
        done: list[str] = []

        async def reconcile(key: str) -> None:
            done.append(key)

        for key in ("a", "b", "a", "a"):
            queue.add(key)
        await work(queue, reconcile)
        return done

    assert asyncio.run(scenario()) == ["a", "b"]


def test_a_key_added_while_it_is_worked_on_runs_again_afterwards_and_never_twice_at_once() -> None:
    async def scenario() -> tuple[int, int]:
        queue: WorkQueue[str] = WorkQueue()
        runs = active = most = 0

        async def reconcile(key: str) -> None:
            nonlocal runs, active, most
            runs += 1
            active += 1
            most = max(most, active)
            if runs == 1:
                queue.add(key)
                queue.add(key)
            await asyncio.sleep(0.01)
            active -= 1

        queue.add("a")
        await work(queue, reconcile)
        return runs, most

    assert asyncio.run(scenario()) == (2, 1)


def test_failures_of_one_key_are_tried_again_and_hold_up_no_other() -> None:
    async def scenario() -> list[str]:
        queue: WorkQueue[str] = WorkQueue()
        story: list[str] = []
        failures = [Unavailable(503, "", "away"), Conflict(409, "Conflict", "changed"), LookupError("bug")]

        async def reconcile(key: str) -> None:
            story.append(key)
            if key == "bad" and failures:
                raise failures.pop()

        queue.add("bad")
        queue.add("good")
        await work(queue, reconcile, workers=1)
        return story

    assert asyncio.run(scenario()) == ["bad", "good", "bad", "bad", "bad"]


def test_pauses_double_up_to_a_limit_and_start_again_after_success() -> None:
    async def scenario() -> tuple[list[float], float]:
        queue: WorkQueue[str] = WorkQueue()
        pauses = []
        for _ in range(20):
            queue.add("a")
            pauses.append(queue.retry(await queue.get()))
        queue.add("a")
        queue.done(await queue.get())
        queue.add("a")
        return pauses, queue.retry(await queue.get())

    pauses, after = asyncio.run(scenario())
    assert pauses[:4] == [0.005, 0.01, 0.02, 0.04]
    assert pauses[-1] == LONGEST_PAUSE_SECONDS
    assert after == 0.005


def test_a_change_does_not_wait_for_the_pause_of_a_failure() -> None:
    async def scenario() -> str:
        queue: WorkQueue[str] = WorkQueue()
        for _ in range(16):
            queue.add("a")
            queue.retry(await queue.get())
        queue.add("a")
        async with asyncio.timeout(5):
            return await queue.get()

    assert asyncio.run(scenario()) == "a"
