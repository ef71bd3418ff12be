"""Who is woken by what, in which order, and how often."""

import pytest

from hybridnet.manager.waiters import Line, Waiters
from hybridnet.model.address import Family

ANY: Line = ("net", Family.V4, None)
NAMED: Line = ("net", Family.V4, "sub")


class Woken(list[str]):
    """Collects the pods that were woken."""

    def __call__(self, key: tuple[str, str]) -> None:
        self.append(key[1])

    def drain(self) -> list[str]:
        found = list(self)
        self.clear()
        return found


def waiting(*names: str, line: Line | None = ANY) -> tuple[Waiters, Woken]:
    woken = Woken()
    waiters = Waiters(woken)
    for name in names:
        waiters.wait(("ns", name), line, "node1", "full")
    return waiters, woken


@pytest.mark.spec("A22")
def test_a_freed_address_wakes_one_waiter_and_the_served_one_wakes_the_next() -> None:
    waiters, woken = waiting("a", "b", "c")
    waiters.address_freed("net", Family.V4, "sub", private=False)
    assert woken.drain() == ["a"]
    waiters.leave(("ns", "a"))
    assert woken.drain() == ["b"]
    waiters.wait(("ns", "b"), ANY, "node1", "full")
    assert woken.drain() == [], "b found nothing: the chain ends"
    waiters.address_freed("net", Family.V4, "sub", private=False)
    assert woken.drain() == ["b"], "b kept its place"


def test_two_freed_addresses_wake_two_waiters() -> None:
    waiters, woken = waiting("a", "b", "c")
    for _ in range(2):
        waiters.address_freed("net", Family.V4, "sub", private=False)
    assert woken.drain() == ["a", "b"]


def test_a_woken_pod_that_is_gone_or_moves_on_passes_the_wake_on() -> None:
    waiters, woken = waiting("a", "b", "c")
    waiters.wake_next(ANY)
    waiters.wait(("ns", "a"), ("net", Family.V6, None), "node1", "no v6")
    assert woken.drain() == ["a", "b"]
    waiters.leave(("ns", "b"))
    assert woken.drain() == ["c"]


def test_private_and_named_subnets_and_other_families_have_lines_of_their_own() -> None:
    waiters, woken = waiting("any")
    waiters.wait(("ns", "named"), NAMED, "node1", "full")
    waiters.address_freed("net", Family.V6, "sub", private=False)
    waiters.address_freed("other", Family.V4, "sub", private=False)
    assert woken.drain() == []
    waiters.address_freed("net", Family.V4, "sub", private=True)
    assert woken.drain() == ["named"]
    waiters.address_freed("net", Family.V4, "else", private=False)
    assert woken.drain() == ["any"]


@pytest.mark.spec("A23")
def test_changes_of_objects_wake_whom_they_concern() -> None:
    waiters, woken = waiting("a", "b", line=None)
    waiters.wait(("other", "c"), ANY, "node2", "full")
    waiters.wake_node("node2")
    assert woken.drain() == ["c"]
    waiters.wake_namespace("ns")
    assert woken.drain() == ["a", "b"]
    waiters.wake_everyone()
    assert woken.drain() == ["a", "b", "c"]
    waiters.wake_heads()
    assert sorted(woken.drain()) == ["a", "b", "c"]


def test_only_a_new_message_is_news() -> None:
    waiters, _ = waiting()
    key = ("ns", "a")
    assert waiters.wait(key, ANY, "node1", "full")
    assert not waiters.wait(key, ANY, "node1", "full")
    assert waiters.wait(key, ANY, "node1", "fuller")
    assert not waiters.wait(key, None, "node1", "fuller")
    assert waiters.wait(key, None, "node1", "unknown network")
    assert key in waiters
    waiters.leave(key)
    waiters.leave(key)
    assert len(waiters) == 0
