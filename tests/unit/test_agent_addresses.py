"""Which addresses a pod has: complete or not, whose, and who is woken when one comes."""

import asyncio
from collections.abc import Callable

import pytest

from hybridnet.agent.addresses import BY_POD, Addresses, index_by_pod
from hybridnet.agent.errors import AddressMissing
from hybridnet.agent.protocol import Call, Configuration
from hybridnet.kube.informer import Event, EventKind
from hybridnet.kube.store import Store
from hybridnet.model import labels
from hybridnet.model.instance import Address, Binding, IPInstance, IPInstanceSpec, IPInstanceStatus
from hybridnet.model.meta import ObjectMeta


class Listing:
    """The part of an informer that is asked: its store, and handlers."""

    trouble = ""

    def __init__(self, *instances: IPInstance) -> None:
        self._store = Store({BY_POD: index_by_pod})
        self._handlers: list[Callable[[Event[IPInstance]], None]] = []
        for instance in instances:
            self._store.put(instance)

    def by_index(self, index: str, key: str) -> list[IPInstance]:
        return self._store.by_index(index, key)

    def add_handler(self, handler: Callable[[Event[IPInstance]], None]) -> None:
        self._handlers.append(handler)

    def put(self, instance: IPInstance) -> None:
        self._store.put(instance)
        for handler in self._handlers:
            handler(Event(EventKind.ADDED, instance))


def instance(name: str, ip: str, **changes: object) -> IPInstance:
    meta = {
        "name": name,
        "namespace": "ns",
        "labels": {labels.IP_FAMILY: changes.pop("stack", "IPv4Only")},
        "creation_timestamp": changes.pop("created", "2026-01-01T00:00:00Z"),
        "deletion_timestamp": changes.pop("deleted", None),
    }
    sandbox = changes.pop("sandbox", "")
    binding = {"node_name": "n1", "pod_uid": "u1", "pod_name": "web-0", **changes}
    return IPInstance(
        metadata=ObjectMeta(**meta),  # type: ignore[arg-type]
        spec=IPInstanceSpec(
            network="net",
            subnet=f"subnet-{name}",
            address=Address(version="6" if ":" in ip else "4", ip=ip, mac="02:12:34:00:00:01"),
            binding=Binding(**binding),  # type: ignore[arg-type]
        ),
        status=IPInstanceStatus(sandbox_id=str(sandbox)) if sandbox else None,
    )


def addresses(*instances: IPInstance) -> Addresses:
    return Addresses(Listing(*instances))  # type: ignore[arg-type]


def call(uid: str = "u1") -> Call:
    return Call(
        command="ADD",
        container="c",
        netns="/n",
        interface="eth0",
        namespace="ns",
        pod="web-0",
        uid=uid,
        configuration=Configuration(),
    )


@pytest.mark.spec("T01")
def test_an_allocation_is_everything_that_the_manager_decided() -> None:
    found = addresses(instance("a", "10.0.0.5/24", sandbox="s")).find("ns", "web-0", "u1")
    assert found is not None
    assert (found.uid, found.mac, found.instances, found.reported) == (
        "u1",
        "02:12:34:00:00:01",
        ("a",),
        True,
    )
    assert [(str(a.address), a.subnet) for a in found.addresses] == [("10.0.0.5/24", "subnet-a")]


@pytest.mark.spec("T02")
@pytest.mark.parametrize(
    ("stack", "ips", "complete"),
    [
        ("DualStack", ["10.0.0.5/24"], False),
        ("DualStack", ["fd00::5/64"], False),
        ("DualStack", ["fd00::5/64", "10.0.0.5/24"], True),
        ("IPv6Only", ["10.0.0.5/24"], False),
        ("IPv6Only", ["fd00::5/64"], True),
        ("", ["10.0.0.5/24"], True),
        ("FutureStack", ["fd00::5/64"], True),
    ],
)
def test_an_allocation_is_complete_when_every_family_of_the_label_is_there(
    stack: str, ips: list[str], complete: bool
) -> None:
    known = addresses(*(instance(f"i{n}", ip, stack=stack) for n, ip in enumerate(ips)))
    found = known.find("ns", "web-0", "u1")
    assert (found is not None) is complete
    if found is not None:
        assert [a.family for a in found.addresses] == sorted(a.family for a in found.addresses)


@pytest.mark.parametrize(
    "changes",
    [{"pod_uid": "u2"}, {"node_name": ""}, {"deleted": "2026-01-01T00:00:00Z"}, {"pod_name": "web-1"}],
)
def test_what_belongs_to_another_or_goes_is_not_taken(changes: dict[str, str]) -> None:
    known = addresses(instance("a", "10.0.0.5/24", **changes))
    assert known.find("ns", "web-0", "u1") is None
    assert known.held("ns", "web-0", "u1") == frozenset()


def test_an_unreadable_address_hides_no_other() -> None:
    known = addresses(instance("bad", "10.0.0.555/24"), instance("good", "10.0.0.5/24"))
    found = known.find("ns", "web-0", "u1")
    assert found is not None
    assert found.instances == ("good",)


@pytest.mark.parametrize(
    ("one", "two"),
    [
        ({"sandbox": "s", "created": "2026-01-02T00:00:00Z"}, {"created": "2026-01-01T00:00:00Z"}),
        ({"created": "2026-01-01T00:00:00Z"}, {"created": "2026-01-02T00:00:00Z"}),
        ({}, {}),
    ],
)
def test_of_two_of_one_family_the_one_in_use_wins_then_the_older_then_the_name(
    one: dict[str, str], two: dict[str, str]
) -> None:
    pair = [instance("a", "10.0.0.5/24", **one), instance("b", "10.0.0.6/24", **two)]
    for order in (pair, pair[::-1]):
        found = addresses(*order).find("ns", "web-0", "u1")
        assert found is not None
        assert found.instances == ("a",)


def test_what_is_held_is_compared_as_an_address_and_not_as_text() -> None:
    known = addresses(instance("a", "FD00:0:0::5/64", stack="IPv6Only"), instance("b", "10.0.0.5/24"))
    assert known.held("ns", "web-0", "u1") == {"fd00::5", "10.0.0.5"}


@pytest.mark.spec("T03")
def test_a_waiter_is_woken_by_the_last_address_that_it_needs() -> None:
    listing = Listing(instance("a", "10.0.0.5/24", stack="DualStack"))
    known = Addresses(listing)  # type: ignore[arg-type]

    async def scenario() -> tuple[str, ...]:
        waiting = asyncio.create_task(known.wait(call(), 30))
        await asyncio.sleep(0)
        listing.put(instance("c", "10.0.0.6/24", stack="DualStack", pod_name="web-1"))
        await asyncio.sleep(0)
        assert not waiting.done()
        listing.put(instance("b", "fd00::5/64", stack="DualStack"))
        return (await waiting).instances

    assert asyncio.run(scenario()) == ("a", "b")


@pytest.mark.spec("T04")
def test_a_wait_in_vain_while_the_api_server_is_away_says_that() -> None:
    listing = Listing()
    listing.trouble = "connection refused"
    known = Addresses(listing)  # type: ignore[arg-type]
    with pytest.raises(AddressMissing, match="API server is away: connection refused"):
        asyncio.run(known.wait(call(), 0))


@pytest.mark.spec("T04")
@pytest.mark.parametrize(
    ("instances", "words"),
    [
        ([], "pod ns/web-0 has no address after 0 s"),
        ([instance("a", "10.0.0.5/24", stack="DualStack")], "pod ns/web-0 wants DualStack but has only a"),
    ],
)
def test_a_wait_in_vain_says_what_is_there(instances: list[IPInstance], words: str) -> None:
    with pytest.raises(AddressMissing, match=words):
        asyncio.run(addresses(*instances).wait(call(), 0))
