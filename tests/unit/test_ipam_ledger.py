"""Ledger and book: an address is free only when no claim, mark or record holds it; specs change under holds."""

from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from hybridnet.ipam.book import AddressBook
from hybridnet.ipam.claims import ClaimRequest, ReleaseRequest, merge, read_block, write_block
from hybridnet.ipam.errors import Exhausted, NoSubnet
from hybridnet.ipam.pool import SubnetPool
from hybridnet.ipam.validity import judge
from hybridnet.model.address import Family
from hybridnet.model.instance import Claim, IPBlock, IPBlockSpec
from hybridnet.model.meta import ObjectMeta
from hybridnet.model.network import (
    AddressRange,
    Network,
    NetworkSpec,
    NetworkStatus,
    Subnet,
    SubnetSpec,
    SubnetStatus,
)

BASE = 10 << 24


def network(name: str = "net") -> Network:
    return Network(metadata=ObjectMeta(name=name), spec=NetworkSpec(type="Overlay", net_id=4))


def subnet(name: str, cidr: str, cursor: str = "", **fields: Any) -> Subnet:
    version = "6" if ":" in cidr else "4"
    return Subnet(
        metadata=ObjectMeta(name=name),
        spec=SubnetSpec(network="net", range=AddressRange(version=version, cidr=cidr, **fields)),
        status=SubnetStatus(last_allocated_ip=cursor) if cursor else None,
    )


class Told:
    """Remembers what the book reported."""

    def __init__(self) -> None:
        self.freed: list[str] = []

    def __call__(self, pool: SubnetPool, freed: bool) -> None:
        if freed:
            self.freed.append(pool.name)


def book(*subnets: Subnet, told: Told | None = None) -> AddressBook:
    result = AddressBook(told or Told())
    result.apply(judge([network()], subnets))
    return result


def held(uid: str, node: str = "n") -> Claim:
    return Claim(uid=uid, node=node)


def test_an_address_is_free_when_mark_claim_and_record_have_all_gone() -> None:
    told = Told()
    addresses = book(subnet("a", "10.0.0.0/24"), told=told)
    ledger = addresses.ledgers[Family.V4]
    pool, address = addresses.pick("net", Family.V4, None, "pod")
    ledger.adopt(address // 256, "7", {address % 256: held("pod")})
    ledger.record(address)
    ledger.unmark(address)
    assert ledger.claims_of("pod") == (address,)
    ledger.adopt(address // 256, "8", {})
    assert ledger.busy(address), "its record has not gone yet"
    assert pool.used == 1
    assert told.freed == []
    ledger.unrecord(address)
    assert (pool.used, told.freed) == (0, ["a"])


def test_a_claim_that_changes_hands_stays_busy_and_moves_in_the_index() -> None:
    addresses = book(subnet("a", "10.0.0.0/24"))
    ledger = addresses.ledgers[Family.V4]
    ledger.adopt(BASE // 256, "1", {5: held("one")})
    ledger.adopt(BASE // 256, "2", {5: held("two"), 6: held("two")})
    assert ledger.claims_of("one") == ()
    assert ledger.claims_of("two") == (BASE + 5, BASE + 6)
    assert addresses.pools["a"].used == 2


def test_a_new_subnet_learns_what_is_held_in_it_already() -> None:
    addresses = book()
    addresses.ledgers[Family.V4].adopt(BASE // 256, "1", {1: held("x"), 200: held("y")})
    addresses.ledgers[Family.V4].record(BASE + 2)
    addresses.apply(judge([network()], [subnet("a", "10.0.0.0/24", end="10.0.0.100")]))
    assert addresses.pools["a"].used == 2
    assert addresses.pick("net", Family.V4, None, "z")[1] == BASE + 3


def test_two_subnets_share_one_block_and_count_apart() -> None:
    low, high = subnet("low", "10.0.0.0/25"), subnet("high", "10.0.0.128/25")
    addresses = book(low, high)
    addresses.ledgers[Family.V4].adopt(BASE // 256, "1", {1: held("x"), 129: held("y"), 130: held("z")})
    assert (addresses.pools["low"].used, addresses.pools["high"].used) == (1, 2)
    same = book(
        subnet("low", "10.0.0.0/24", end="10.0.0.127"), subnet("high", "10.0.0.0/24", start="10.0.0.128")
    )
    same.ledgers[Family.V4].adopt(BASE // 256, "1", {1: held("x"), 129: held("y"), 130: held("z")})
    assert (same.pools["low"].used, same.pools["high"].used) == (1, 2)
    pool = same.pool_of(Family.V4, BASE + 129)
    assert pool and pool.name == "high"
    assert same.pool_of(Family.V4, BASE + 300) is None


@pytest.mark.spec("A30", "W2")
def test_editing_a_subnet_with_allocations_in_flight_gives_no_address_twice() -> None:
    addresses = book(subnet("a", "10.0.0.0/24"))
    given: list[int] = []
    for round_ in range(50):
        given.extend(addresses.pick("net", Family.V4, None, f"p{round_}-{n}")[1] for n in range(3))
        edited = subnet("a", "10.0.0.0/24", cursor="10.0.0.1", reserved_ips=(f"10.0.0.{200 + round_}",))
        addresses.apply(judge([network()], [edited]))
    assert given == sorted(set(given)), "no duplicate, and the cursor never went back"


@pytest.mark.spec("A8")
def test_persisted_cursors_are_followed_until_this_process_allocates() -> None:
    first, second = (
        subnet("a", "10.0.0.0/24", cursor="10.0.0.9"),
        subnet("b", "10.0.1.0/24", cursor="10.0.1.4"),
    )
    at_b = Network(
        metadata=ObjectMeta(name="net"),
        spec=NetworkSpec(type="Overlay", net_id=4),
        status=NetworkStatus(last_allocated_subnet="b"),
    )
    addresses = AddressBook(Told())
    addresses.apply(judge([at_b], [first, second]))
    assert addresses.pick("net", Family.V4, None, "p")[1] == BASE + 256 + 5
    addresses.restore_cursor(subnet("b", "10.0.1.0/24", cursor="10.0.1.77"))
    assert addresses.pick("net", Family.V4, None, "p")[1] == BASE + 256 + 6
    addresses.rest()
    addresses.restore_cursor(subnet("b", "10.0.1.0/24", cursor="10.0.1.77"))
    addresses.restore_cursor(subnet("b", "10.0.1.0/24", cursor="nonsense"))
    assert addresses.pick("net", Family.V4, None, "p")[1] == BASE + 256 + 78


def test_a_removed_subnet_or_network_gives_nothing_more() -> None:
    addresses = book(subnet("a", "10.0.0.0/30"))
    assert addresses.available("net", Family.V4, None)
    addresses.apply(judge([network()], []))
    assert not addresses.available("net", Family.V4, None)
    with pytest.raises(NoSubnet):
        addresses.pick("net", Family.V4, None, "p")
    addresses.apply(judge([], []))
    with pytest.raises(NoSubnet):
        addresses.pick("net", Family.V4, None, "p")


def test_a_subnet_recreated_with_another_cidr_starts_anew() -> None:
    addresses = book(subnet("a", "10.0.0.0/24"))
    addresses.pick("net", Family.V4, None, "p")
    addresses.apply(judge([network()], [subnet("a", "10.0.1.0/24")]))
    assert addresses.pools["a"].used == 0
    assert addresses.pick("net", Family.V4, None, "q")[1] == BASE + 257


def test_claims_and_releases_of_many_pods_become_one_update() -> None:
    before = {1: held("a"), 2: held("b")}
    claims, answers = merge(
        before,
        [
            ClaimRequest(3, held("c")),
            ClaimRequest(3, held("d")),
            ClaimRequest(1, held("a")),
            ClaimRequest(9, held("b")),
            ReleaseRequest(1, "a"),
            ReleaseRequest(2, "nobody"),
            ReleaseRequest(8, "a"),
            ClaimRequest(1, held("e")),
            ClaimRequest(7, held("b"), exact=True),
            ClaimRequest(3, held("b"), exact=True),
        ],
    )
    assert answers == [3, None, 1, 2, 1, None, None, 1, 7, None]
    assert claims == {1: held("e"), 2: held("b"), 3: held("c"), 7: held("b")}
    assert before == {1: held("a"), 2: held("b")}


@pytest.mark.parametrize(("family", "number"), [(Family.V4, 0x0A0003), (Family.V6, 0xFD00 << 104)])
def test_a_block_is_written_and_read_back(family: Family, number: int) -> None:
    claims = {10: held("x"), 2: held("y", "")}
    block = write_block(family, number, "77", claims)
    assert read_block(block) == (family, number, claims)
    assert block.metadata.resource_version == "77"
    assert block.name.endswith("-24" if family is Family.V4 else "-120")


@pytest.mark.parametrize(
    ("name", "cidr", "offset"),
    [
        ("10-0-0-0-23", "10.0.0.0/23", "0"),
        ("other", "10.0.0.0/24", "0"),
        ("10-0-0-0-24", "10.0.0.0/24", "256"),
        ("10-0-0-0-24", "10.0.0.0/24", "x"),
        ("10-0-0-0-24", "garbage", "1"),
    ],
)
def test_a_block_that_makes_no_sense_is_refused(name: str, cidr: str, offset: str) -> None:
    with pytest.raises(ValueError):
        read_block(IPBlock(metadata=ObjectMeta(name=name), spec=IPBlockSpec(cidr=cidr, claims={offset: "x"})))


PODS = st.sampled_from([f"pod{n}" for n in range(12)])


class BookAgainstModel(RuleBasedStateMachine):
    """Pods come and go on two small subnets while claims, marks and records change and the subnets are edited."""

    def __init__(self) -> None:
        super().__init__()
        self.reserved: tuple[str, ...] = ()
        self.book = book(*self.subnets())
        self.ledger = self.book.ledgers[Family.V4]
        self.marks: dict[int, str] = {}
        self.claims: dict[int, str] = {}
        self.records: set[int] = set()
        self.version = 0

    def subnets(self) -> list[Subnet]:
        return [
            subnet("a", "10.0.0.0/29", reserved_ips=self.reserved),
            subnet("b", "10.0.0.8/29", gateway="10.0.0.9"),
        ]

    def write(self) -> None:
        self.version += 1
        claims = {address - BASE: held(uid) for address, uid in self.claims.items()}
        self.ledger.adopt(BASE // 256, str(self.version), claims)

    def busy(self) -> set[int]:
        return {*self.marks, *self.claims, *self.records}

    @rule(pod=PODS)
    def pick(self, pod: str) -> None:
        """An address that nothing holds, or none when all are held."""
        usable = {BASE + n for n in (*range(1, 7), *range(10, 15))} - {
            BASE + int(text.rsplit(".", 1)[1]) for text in self.reserved
        }
        try:
            _, address = self.book.pick("net", Family.V4, None, pod)
        except Exhausted:
            assert usable <= self.busy()
        else:
            assert address in usable - self.busy()
            self.marks[address] = pod

    @rule(data=st.data())
    def commit(self, data: st.DataObject) -> None:
        """The claim behind a mark is written."""
        if self.marks:
            address = data.draw(st.sampled_from(sorted(self.marks)))
            self.claims.setdefault(address, self.marks.pop(address))
            self.write()
            self.ledger.unmark(address)

    @rule(offset=st.integers(0, 15))
    def foreign_claim(self, offset: int) -> None:
        """Another manager was faster, perhaps on an address that is marked here."""
        self.claims.setdefault(BASE + offset, "foreign")
        self.write()

    @rule(data=st.data())
    def collide(self, data: st.DataObject) -> None:
        """Another manager claims what is marked here, and may give it back before our write has ended."""
        if self.marks:
            address = data.draw(st.sampled_from(sorted(self.marks)))
            self.foreign_claim(address - BASE)
            if data.draw(st.booleans()):
                del self.claims[address]
                self.write()

    @rule(data=st.data())
    def fail(self, data: st.DataObject) -> None:
        """The claim was refused."""
        if self.marks:
            address = data.draw(st.sampled_from(sorted(self.marks)))
            del self.marks[address]
            self.ledger.unmark(address)

    @rule(data=st.data())
    def record(self, data: st.DataObject) -> None:
        """An IPInstance is written."""
        if missing := sorted(set(self.claims) - self.records):
            address = data.draw(st.sampled_from(missing))
            self.records.add(address)
            self.ledger.record(address)

    @rule(data=st.data())
    def lose_claim(self, data: st.DataObject) -> None:
        """A claim is released, or its block deleted by hand."""
        if self.claims:
            del self.claims[data.draw(st.sampled_from(sorted(self.claims)))]
            self.write()

    @rule(data=st.data())
    def lose_record(self, data: st.DataObject) -> None:
        """An IPInstance goes."""
        if self.records:
            address = data.draw(st.sampled_from(sorted(self.records)))
            self.records.discard(address)
            self.ledger.unrecord(address)

    @rule(reserved=st.sets(st.integers(1, 6), max_size=3))
    def edit(self, reserved: set[int]) -> None:
        """The operator edits a subnet."""
        self.reserved = tuple(f"10.0.0.{n}" for n in reserved)
        self.book.apply(judge([network()], self.subnets()))

    @rule()
    def recreate(self) -> None:
        """The operator deletes the subnets and makes them again."""
        self.book.apply(judge([network()], []))
        self.book.apply(judge([network()], self.subnets()))

    @invariant()
    def agree(self) -> None:
        """The pools hold exactly what is busy, the index what is claimed."""
        seen = {BASE + n for n in range(16) if any(p.holds(BASE + n) for p in self.book.pools.values())}
        assert seen == self.busy()
        for pod in set(self.claims.values()):
            assert self.ledger.claims_of(pod) == tuple(sorted(a for a, p in self.claims.items() if p == pod))


TestBookAgainstModel = BookAgainstModel.TestCase
TestBookAgainstModel.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
