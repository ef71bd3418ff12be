"""Subnets and networks: cursor, order, reserved addresses, private subnets, and a model of it all."""

from ipaddress import ip_address
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from hybridnet.ipam.errors import Exhausted, NoSubnet
from hybridnet.ipam.network import NetworkPool
from hybridnet.ipam.pool import SubnetPool
from hybridnet.ipam.range import SubnetRange, address_at, parse_range
from hybridnet.model.address import Family
from hybridnet.model.network import AddressRange


def parse(cidr: str, **fields: Any) -> SubnetRange:
    return parse_range(AddressRange(version="6" if ":" in cidr else "4", cidr=cidr, **fields))


def pool(cidr: str, name: str = "a", **fields: Any) -> SubnetPool:
    private = fields.pop("private", False)
    return SubnetPool(name, "net", parse(cidr, **fields), private=private)


def given_out(pool: SubnetPool, count: int) -> list[str]:
    picked = [pool.pick() for _ in range(count)]
    return [str(address_at(pool.range.family, a)) for a in picked if a is not None]


def number(text: str) -> int:
    return int(ip_address(text))


@pytest.mark.spec("A7")
def test_a_freed_address_rests_until_the_cursor_wraps() -> None:
    subnet = pool("10.0.0.0/29", gateway="10.0.0.1")
    assert given_out(subnet, 3) == ["10.0.0.2", "10.0.0.3", "10.0.0.4"]
    subnet.free(number("10.0.0.2"))
    assert given_out(subnet, 3) == ["10.0.0.5", "10.0.0.6", "10.0.0.2"]
    assert subnet.pick() is None


@pytest.mark.spec("A8")
def test_a_restart_continues_behind_the_persisted_cursor() -> None:
    subnet = pool("10.0.0.0/24")
    subnet.restore_cursor(number("10.0.0.4"))
    assert given_out(subnet, 1) == ["10.0.0.5"]
    subnet.restore_cursor(number("10.0.0.2"))
    assert given_out(subnet, 1) == ["10.0.0.6"], "a late status must not rewind the cursor"


@pytest.mark.parametrize("cursor", ["10.0.0.0", "10.0.0.255", "10.0.0.30", "10.0.0.40"])
def test_a_cursor_outside_or_at_the_end_starts_over(cursor: str) -> None:
    subnet = pool("10.0.0.0/24", start="10.0.0.20", end="10.0.0.30")
    subnet.restore_cursor(number(cursor))
    assert given_out(subnet, 1) == ["10.0.0.20"]


@pytest.mark.spec("A6")
def test_a_v6_subnet_gives_100_addresses_in_order() -> None:
    subnet = pool("fe80::/120")
    assert given_out(subnet, 100) == [f"fe80::{n:x}" for n in range(1, 101)]


@pytest.mark.spec("A9")
def test_gateway_excluded_and_reserved_addresses_are_never_given() -> None:
    subnet = pool(
        "10.0.0.0/28",
        gateway="10.0.0.1",
        exclude_ips=("10.0.0.3",),
        reserved_ips=("10.0.0.14", "10.0.0.5"),
    )
    everything = given_out(subnet, 100)
    assert len(everything) == subnet.total == 10
    assert not {"10.0.0.1", "10.0.0.3", "10.0.0.5", "10.0.0.14"} & set(everything)


@pytest.mark.spec("A34", "A35")
def test_reserving_an_address_in_use_takes_effect_when_it_is_freed() -> None:
    subnet = pool("10.0.0.0/30")
    assert given_out(subnet, 1) == ["10.0.0.1"]
    subnet.change(parse("10.0.0.0/30", reserved_ips=("10.0.0.1",)))
    assert subnet.holds(number("10.0.0.1"))
    assert (subnet.total, subnet.used, subnet.available) == (1, 0, 1)
    subnet.free(number("10.0.0.1"))
    assert given_out(subnet, 2) == ["10.0.0.2"]
    subnet.free(number("10.0.0.2"))
    assert given_out(subnet, 2) == ["10.0.0.2"], "the reserved one would be next"
    subnet.change(parse("10.0.0.0/30"))
    assert given_out(subnet, 1) == ["10.0.0.1"]


@pytest.mark.spec("R15")
def test_a_slash_64_and_a_nearly_full_range_are_searched_at_once() -> None:
    wide = pool("fd00::/64")
    wide.restore_cursor(wide.range.end - 1)
    assert given_out(wide, 2) == ["fd00::ffff:ffff:ffff:ffff", "fd00::1"]
    full = pool("10.0.0.0/14")
    for address in range(full.range.start, full.range.end + 1):
        full.hold(address)
    full.free(full.range.start + 5)
    full.restore_cursor(full.range.start + 9)
    assert full.pick() == full.range.start + 5
    assert full.pick() is None


def network(*pools: SubnetPool) -> NetworkPool:
    result = NetworkPool("net")
    for one in pools:
        result.put(one)
    return result


def names(net: NetworkPool, count: int, family: Family = Family.V4) -> list[str]:
    return [net.pick(family)[0].name for _ in range(count)]


@pytest.mark.spec("A10")
def test_a_network_drains_one_subnet_before_the_next_and_then_stays_there() -> None:
    first, second = pool("10.0.0.0/30", "a"), pool("10.0.1.0/29", "b")
    net = network(second, first)
    assert names(net, 3) == ["a", "a", "b"]
    first.free(number("10.0.0.1"))
    assert names(net, 6) == ["b"] * 5 + ["a"]
    assert net.current(Family.V4) == "a"


@pytest.mark.spec("A11")
def test_a_new_subnet_does_not_shift_the_current_one() -> None:
    net = network(pool("10.0.1.0/24", "m"), pool("10.0.2.0/30", "z"))
    net.restore_current(Family.V4, "z")
    net.put(pool("10.0.3.0/24", "a"))
    assert [p.name for p in net.subnets(Family.V4)] == ["a", "m", "z"]
    assert names(net, 3) == ["z", "z", "a"]


@pytest.mark.spec("A12", "A13")
def test_a_private_subnet_serves_only_who_names_it() -> None:
    net = network(pool("10.0.0.0/30", "open"), pool("10.0.1.0/24", "secret", private=True))
    assert names(net, 2) == ["open", "open"]
    with pytest.raises(Exhausted, match="open 2 of 2") as caught:
        net.pick(Family.V4)
    assert "private" in str(caught.value)
    assert net.pick(Family.V4, "secret")[0].name == "secret"


@pytest.mark.spec("A33")
def test_a_subnet_made_private_keeps_its_holds_and_gets_no_new_ones() -> None:
    first, second = pool("10.0.0.0/24", "a"), pool("10.0.1.0/24", "b")
    net = network(first, second)
    assert names(net, 1) == ["a"]
    first.private = True
    assert names(net, 1) == ["b"]
    assert first.used == 1


@pytest.mark.spec("A21")
def test_missing_subnets_are_told_from_full_ones() -> None:
    with pytest.raises(NoSubnet, match="no usable IPv6 subnet"):
        network(pool("10.0.0.0/24")).pick(Family.V6)
    with pytest.raises(NoSubnet, match="describe subnet x"):
        network(pool("10.0.0.0/24")).pick(Family.V4, "x")
    full = network(pool("10.0.0.0/30"))
    names(full, 2)
    with pytest.raises(Exhausted, match="subnet a of network net is full: 2 of 2"):
        full.pick(Family.V4, "a")


SMALL = st.integers(1, 14)


class PoolAgainstModel(RuleBasedStateMachine):
    """One subnet of 14 addresses, allocated from, released, edited; the model is a plain scan."""

    def __init__(self) -> None:
        super().__init__()
        self.subnet = pool("10.0.0.0/28")
        self.held: set[int] = set()
        self.cursor = 0
        self.first, self.last = 1, 14
        self.reserved: frozenset[int] = frozenset()
        self.excluded: frozenset[int] = frozenset()

    def usable(self, offset: int) -> bool:
        return self.first <= offset <= self.last and offset not in self.reserved | self.excluded

    @rule()
    def allocate(self) -> None:
        """The next free address, by brute force."""
        begin = self.cursor if self.first <= self.cursor < self.last else self.first - 1
        order = [*range(begin + 1, self.last + 1), *range(self.first, begin + 1)]
        expected = next((o for o in order if self.usable(o) and o not in self.held), None)
        picked = self.subnet.pick()
        assert picked == (None if expected is None else number(f"10.0.0.{expected}"))
        if expected is not None:
            self.held.add(expected)
            self.cursor = expected

    @rule(offset=SMALL)
    def release_any(self, offset: int) -> None:
        """Free one, held or not."""
        self.subnet.free(number(f"10.0.0.{offset}"))
        self.held.discard(offset)

    @rule(data=st.data())
    def release(self, data: st.DataObject) -> None:
        """Free a held one."""
        if self.held:
            self.release_any(data.draw(st.sampled_from(sorted(self.held))))

    @rule()
    def allocate_everything(self) -> None:
        """Every usable address is given exactly once, no other one is."""
        for _ in range(15):
            self.allocate()

    @rule(offset=SMALL)
    def hold_from_elsewhere(self, offset: int) -> None:
        """Another manager's claim shows up."""
        self.subnet.hold(number(f"10.0.0.{offset}"))
        self.held.add(offset)

    @rule(
        bounds=st.tuples(SMALL, SMALL),
        reserved=st.frozensets(SMALL, max_size=5),
        excluded=st.frozensets(SMALL, max_size=4),
    )
    def edit(self, bounds: tuple[int, int], reserved: frozenset[int], excluded: frozenset[int]) -> None:
        """The operator changes the subnet."""
        first, last = min(bounds), max(bounds)
        if excluded >= set(range(first, last + 1)):
            return
        self.first, self.last, self.reserved, self.excluded = first, last, reserved, excluded
        self.subnet.change(
            parse(
                "10.0.0.0/28",
                start=f"10.0.0.{first}",
                end=f"10.0.0.{last}",
                reserved_ips=tuple(f"10.0.0.{o}" for o in reserved),
                exclude_ips=tuple(f"10.0.0.{o}" for o in excluded),
            )
        )

    @invariant()
    def counts_agree(self) -> None:
        """Total, used and available are what counting says."""
        usable = {o for o in range(16) if self.usable(o)}
        assert self.subnet.total == len(usable)
        assert self.subnet.used == len(usable & self.held)
        assert self.subnet.available == len(usable - self.held)


TestPoolAgainstModel = PoolAgainstModel.TestCase
TestPoolAgainstModel.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
