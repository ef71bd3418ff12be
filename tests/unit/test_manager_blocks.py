"""Group commit against an API server that conflicts, times out and loses answers, with two managers at once.

The double below is the store of one kind with resourceVersions; it injects the faults that a real server cannot be
made to have on demand. The same code runs against a real server in tests/api.
"""

import asyncio
import random
from collections import Counter
from typing import Any, cast

import msgspec
import pytest

from hybridnet.ipam.book import AddressBook
from hybridnet.ipam.errors import Exhausted
from hybridnet.ipam.selection import Choice, IPFamily
from hybridnet.ipam.validity import judge
from hybridnet.kube.client import Client
from hybridnet.kube.errors import AlreadyExists, Conflict, Forbidden, NotFound, Unavailable
from hybridnet.manager.allocator import Allocator, Grant
from hybridnet.manager.blocks import BlockStore
from hybridnet.model.address import Family
from hybridnet.model.instance import Claim, IPBlock, IPInstance
from hybridnet.model.meta import ObjectMeta
from hybridnet.model.network import AddressRange, Network, NetworkSpec, Subnet, SubnetSpec


class Server:
    """IPBlocks with optimistic concurrency; *faults* is the share of writes whose answer is lost."""

    def __init__(self, seed: int = 0, faults: float = 0.0) -> None:
        self.objects: dict[str, IPBlock] = {}
        self.version = 100
        self.writes = 0
        self.forbidden = False
        self._random = random.Random(seed)  # noqa: S311
        self._faults = faults

    async def get(self, _: Any, name: str) -> IPBlock:
        await self._network()
        if self._random.random() < self._faults:
            raise Unavailable(0, "", "read timed out")
        if name not in self.objects:
            raise NotFound(404, "NotFound", name)
        return self.objects[name]

    async def create(self, _: Any, obj: IPBlock) -> IPBlock:
        return await self._write(obj, None)

    async def replace(self, _: Any, obj: IPBlock) -> IPBlock:
        return await self._write(obj, obj.metadata.resource_version)

    async def delete(self, _: Any, name: str, *, resource_version: str | None = None) -> None:
        await self._network()
        found = self._require(name)
        if resource_version != found.metadata.resource_version:
            raise Conflict(409, "Conflict", name)
        if not self._lost_before():
            del self.objects[name]
            self.version += 1
            self.writes += 1
            self._lost_after()

    async def _write(self, obj: IPBlock, version: str | None) -> IPBlock:
        await self._network()
        if self.forbidden:
            raise Forbidden(403, "Forbidden", "no")
        if version is None and obj.name in self.objects:
            raise AlreadyExists(409, "AlreadyExists", obj.name)
        if version is not None and self._require(obj.name).metadata.resource_version != version:
            raise Conflict(409, "Conflict", obj.name)
        self._lost_before()
        self.version += 1
        self.writes += 1
        metadata = msgspec.structs.replace(obj.metadata, resource_version=str(self.version))
        self.objects[obj.name] = msgspec.structs.replace(obj, metadata=metadata)
        self._lost_after()
        return self.objects[obj.name]

    def _require(self, name: str) -> IPBlock:
        if name not in self.objects:
            raise NotFound(404, "NotFound", name)
        return self.objects[name]

    async def _network(self) -> None:
        for _ in range(self._random.randrange(3)):
            await asyncio.sleep(0)

    def _lost_before(self) -> bool:
        if self._random.random() < self._faults / 2:
            raise Unavailable(0, "", "connection lost before the write")
        return False

    def _lost_after(self) -> None:
        if self._random.random() < self._faults / 2:
            raise Unavailable(0, "", "connection lost after the write")

    def holders(self) -> dict[tuple[str, str], str]:
        return {
            (name, offset): Claim.parse(text).uid
            for name, block in self.objects.items()
            for offset, text in block.spec.claims.items()
        }


class Manager:
    """One manager's memory over the shared server; it sees no events, so its memory is as stale as can be."""

    def __init__(self, server: Server, *cidrs: str) -> None:
        self.book = AddressBook(lambda _pool, _freed: None)
        subnets = [
            Subnet(
                metadata=ObjectMeta(name=f"s{n}"),
                spec=SubnetSpec(
                    network="net", range=AddressRange(version="6" if ":" in cidr else "4", cidr=cidr)
                ),
            )
            for n, cidr in enumerate(cidrs)
        ]
        network = Network(metadata=ObjectMeta(name="net"), spec=NetworkSpec(type="Overlay"))
        self.book.apply(judge([network], subnets))
        self.records: dict[str, list[IPInstance]] = {}
        self.blocks = BlockStore(cast("Client", server), self.book)
        self.allocator = Allocator(self.book, self.blocks, lambda uid: self.records.get(uid, []))

    async def give(self, uid: str, family: IPFamily = IPFamily.V4_ONLY) -> list[Grant]:
        return await self.allocator.allocate(
            uid, "node", Choice("net", family, (None,) * len(family.families))
        )

    def used(self) -> dict[str, int]:
        return {name: pool.used for name, pool in self.book.pools.items()}


@pytest.fixture(autouse=True)
def short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hybridnet.manager.blocks.RETRY_FIRST_S", 0.0)


def test_a_burst_shares_updates() -> None:
    async def burst() -> Server:
        server = Server()
        manager = Manager(server, "10.0.0.0/24")
        grants = await asyncio.gather(*(manager.give(f"pod{n}") for n in range(200)))
        assert len({grant[0].address for grant in grants}) == 200
        return server

    server = asyncio.run(burst())
    assert len(server.holders()) == 200
    assert server.writes < 20


@pytest.mark.spec("A29", "A31", "F2", "W1", "W9")
@pytest.mark.parametrize("seed", range(8))
def test_two_managers_with_stale_memories_and_lost_answers_give_no_address_twice(seed: int) -> None:
    async def compete() -> None:
        server = Server(seed, faults=0.1)
        managers = [Manager(server, "10.0.0.0/24", "10.0.1.0/24") for _ in range(2)]
        pods = [f"{seed}-{n}" for n in range(150)]
        given = await asyncio.gather(*(managers[n % 2].give(pod) for n, pod in enumerate(pods)))
        addresses = Counter(grant.address for grants in given for grant in grants)
        assert len(addresses) == 150
        assert Counter(server.holders().values()) == Counter(pods)

    asyncio.run(compete())


@pytest.mark.parametrize("seed", range(4))
def test_two_managers_that_serve_the_same_pods_leave_each_one_claim_per_block(seed: int) -> None:
    async def compete() -> None:
        server = Server(seed, faults=0.05)
        managers = [Manager(server, "10.0.0.0/24", "fd00::/120") for _ in range(2)]
        pods = [f"{seed}-{n}" for n in range(60)]
        both = await asyncio.gather(
            *(manager.give(pod, IPFamily.DUAL_STACK) for pod in pods for manager in managers)
        )
        assert both[::2] == both[1::2], "both managers answer the same"
        assert Counter(server.holders().values()) == Counter(dict.fromkeys(pods, 2))

    asyncio.run(compete())


@pytest.mark.parametrize("seed", range(4))
def test_everything_released_leaves_no_block_behind(seed: int) -> None:
    async def cycle() -> None:
        server = Server(seed, faults=0.1)
        manager = Manager(server, "10.0.0.0/22")
        pods = [f"pod{n}" for n in range(300)]
        grants = await asyncio.gather(*(manager.give(pod) for pod in pods))
        released = await asyncio.gather(
            *(
                manager.allocator.release(Family.V4, grant[0].address, pod)
                for pod, grant in zip(pods, grants, strict=True)
            )
        )
        assert server.holders() == {}
        assert server.objects == {}
        assert manager.used() == {"s0": 0}
        assert any(released)

    asyncio.run(cycle())


@pytest.mark.spec("W4", "G7")
def test_only_the_owner_can_give_an_address_back() -> None:
    async def steal() -> None:
        server = Server()
        manager = Manager(server, "10.0.0.0/24")
        [grant] = await manager.give("owner")
        assert not await manager.allocator.release(Family.V4, grant.address, "thief")
        assert await manager.allocator.release(Family.V4, grant.address, "owner")
        assert not await manager.allocator.release(Family.V4, grant.address, "owner")

    asyncio.run(steal())


@pytest.mark.spec("A15")
def test_dual_stack_is_all_or_nothing() -> None:
    async def starve() -> None:
        server = Server()
        manager = Manager(server, "10.0.0.0/24", "fd00::/126")
        for n in range(3):
            await manager.give(f"v6-{n}", IPFamily.V6_ONLY)
        before = manager.used()
        with pytest.raises(Exhausted, match="IPv6"):
            await manager.give("pod", IPFamily.DUAL_STACK)
        assert manager.used() == before

    asyncio.run(starve())


@pytest.mark.spec("A15")
def test_a_family_lost_to_another_manager_gives_the_other_one_back() -> None:
    async def lose() -> None:
        server = Server()
        fast, slow = (Manager(server, "10.0.0.0/24", "fd00::/126") for _ in range(2))
        for n in range(3):
            await fast.give(f"v6-{n}", IPFamily.V6_ONLY)
        with pytest.raises(Exhausted, match="IPv6"):
            await slow.give("pod", IPFamily.DUAL_STACK)
        assert "pod" not in server.holders().values()
        assert slow.used() == {"s0": 0, "s1": 3}

    asyncio.run(lose())


@pytest.mark.spec("F3", "A31")
def test_a_claim_without_record_is_found_again_by_the_next_manager() -> None:
    async def crash() -> None:
        server = Server()
        first, second = (Manager(server, "10.0.0.0/24") for _ in range(2))
        await first.give("other")
        given = await first.give("pod")
        await second.blocks.refresh(Family.V4, given[0].address // 256)
        assert await second.give("pod") == given

    asyncio.run(crash())


@pytest.mark.spec("F3")
def test_a_claim_in_another_block_is_found_as_well() -> None:
    async def crash() -> None:
        server = Server()
        first, second = (Manager(server, "10.0.0.0/16") for _ in range(2))
        given = await first.give("pod")
        await second.blocks.refresh(Family.V4, given[0].address // 256)
        second.book.pools["s0"].restore_cursor(given[0].address + 5000)
        assert await second.give("pod") == given
        assert len(server.holders()) == 1

    asyncio.run(crash())


@pytest.mark.spec("W4", "W9")
@pytest.mark.parametrize("seed", range(8))
def test_claims_and_releases_of_two_managers_never_undo_each_other(seed: int) -> None:
    async def churn() -> None:
        server = Server(seed, faults=0.05)
        managers = [Manager(server, "10.0.0.0/28") for _ in range(2)]
        dice = random.Random(seed)  # noqa: S311

        async def live(number: int) -> None:
            manager = managers[number % 2]
            for life in range(6):
                owner = f"{number}-{life}"
                try:
                    [grant] = await manager.give(owner)
                except Exhausted:
                    await manager.blocks.refresh(Family.V4, 10 << 16)
                    continue
                for _ in range(dice.randrange(4)):
                    await asyncio.sleep(0)
                assert owner in server.holders().values(), "a committed claim was undone by somebody else"
                await manager.allocator.release(Family.V4, grant.address, owner)

        await asyncio.gather(*(live(number) for number in range(12)))
        assert server.holders() == {}

    asyncio.run(churn())


def test_claims_that_no_longer_fit_are_given_back() -> None:
    async def move() -> None:
        server = Server()
        manager = Manager(server, "10.0.0.0/24", "10.0.1.0/24", "fd00::/64")
        await manager.give("pod", IPFamily.DUAL_STACK)
        [grant] = await manager.allocator.allocate("pod", "node", Choice("net", IPFamily.V4_ONLY, ("s1",)))
        assert grant.subnet == "s1"
        assert len(server.holders()) == 1

    asyncio.run(move())


def test_a_refusal_reaches_every_waiting_pod_and_leaves_nothing_marked() -> None:
    async def refuse() -> None:
        server = Server()
        manager = Manager(server, "10.0.0.0/24")
        server.forbidden = True
        results = await asyncio.gather(*(manager.give(f"pod{n}") for n in range(5)), return_exceptions=True)
        assert all(isinstance(result, Forbidden) for result in results)
        assert manager.used() == {"s0": 0}
        server.forbidden = False
        assert await manager.give("pod0")

    asyncio.run(refuse())


def test_a_term_that_ends_cancels_what_waits() -> None:
    async def stop() -> None:
        server = Server()
        manager = Manager(server, "10.0.0.0/24")
        asking = [asyncio.create_task(manager.give(f"pod{n}")) for n in range(5)]
        await asyncio.sleep(0)
        await manager.blocks.stop()
        results = await asyncio.gather(*asking, return_exceptions=True)
        assert all(isinstance(result, asyncio.CancelledError) for result in results)
        assert manager.used() == {"s0": 0}
        with pytest.raises(asyncio.CancelledError):
            await manager.blocks.claim(Family.V4, 1, Claim(uid="x"))

    asyncio.run(stop())
