"""Claims of scopes on kernel objects."""

from ipaddress import IPv4Network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hybridnet.kernel.errors import ConflictingWant
from hybridnet.kernel.ledger import Ledger, key_of
from hybridnet.model.address import Family
from hybridnet.plan.state import Route, RouteType, Rule, RuleAction


def route(number: int, device: str = "nic") -> Route:
    return Route(300, IPv4Network((number, 32)), device)


def test_what_no_scope_wants_any_more_is_dropped_once() -> None:
    ledger = Ledger()
    assert ledger.claim("a", [route(1), route(2)]).dropped == []
    assert ledger.claim("b", [route(2)]).dropped == []
    assert ledger.claim("a", []).dropped == [route(1)]
    assert ledger.claim("b", []).dropped == [route(2)]
    assert ledger.claim("b", []).dropped == []
    assert list(ledger) == []
    assert ledger.scopes() == ()


def test_a_scope_may_change_what_it_alone_wants() -> None:
    ledger = Ledger()
    ledger.claim("a", [route(1)])
    claim = ledger.claim("a", [route(1, "other")])
    assert (claim.wanted, claim.dropped, claim.conflicts) == ([route(1, "other")], [], [])
    assert ledger.value(key_of(route(1))) == route(1, "other")


def test_a_conflict_names_both_and_keeps_the_first() -> None:
    ledger = Ledger()
    ledger.claim("a", [route(1)])
    claim = ledger.claim("b", [route(1, "other"), route(2)])
    assert claim.wanted == [route(2)]
    ((item, error),) = claim.conflicts
    assert item == route(1, "other")
    assert isinstance(error, ConflictingWant)
    assert str(error) == (
        "b wants route 0.0.0.1/32 dev other table 300, but a wants route 0.0.0.1/32 dev nic table 300"
    )
    assert ledger.value(key_of(route(1))) == route(1)


def test_a_scope_that_contradicts_itself_keeps_its_first_word() -> None:
    claim = Ledger().claim("a", [route(1), route(1, "other"), route(1)])
    assert claim.wanted == [route(1)]
    assert [item for item, _ in claim.conflicts] == [route(1, "other")]


def test_objects_of_different_kinds_never_collide() -> None:
    ledger = Ledger()
    rule = Rule(Family.V4, 300, RuleAction.NOP)
    blackhole = Route(300, IPv4Network("0.0.0.0/0"), type=RouteType.BLACKHOLE)
    assert ledger.claim("a", [rule, blackhole]).conflicts == []
    assert key_of(rule) != key_of(blackhole)


wants = st.lists(st.builds(route, st.integers(0, 5), st.sampled_from(["x", "y"])), max_size=6)


@given(st.lists(st.tuples(st.sampled_from("abc"), wants), max_size=20))
def test_the_union_is_what_the_scopes_were_granted(steps: list[tuple[str, list[Route]]]) -> None:
    """Whatever happens, the ledger holds exactly what some scope was granted, and tells every loss."""
    ledger, granted, alive = Ledger(), {}, set()
    for scope, want in steps:
        claim = ledger.claim(scope, want)
        granted[scope] = set(claim.wanted)
        alive |= {key_of(item) for item in claim.wanted}
        alive -= {key_of(item) for item in claim.dropped}
        union = set().union(*granted.values())
        assert set(ledger) == union
        assert alive == {key_of(item) for item in union}
        assert len(union) == len(alive)
        assert {item for item, _ in claim.conflicts}.isdisjoint(granted[scope])


@pytest.mark.parametrize("order", [("a", "b"), ("b", "a")])
def test_a_released_object_can_be_claimed_differently(order: tuple[str, str]) -> None:
    ledger = Ledger()
    first, second = order
    ledger.claim(first, [route(1)])
    assert ledger.claim(second, [route(1, "other")]).conflicts
    ledger.claim(first, [])
    assert ledger.claim(second, [route(1, "other")]).conflicts == []
