"""Addresses for pods: pick in memory, mark, commit the claim, and only then call it given.

Before anything is picked, claims that the pod has already are looked for (a manager that died after the
commit, or another one that was faster), so no pod keeps two addresses of one family. Dual stack is all or
nothing: when one family has no address, the other is given back.
"""

import asyncio
from collections.abc import Callable
from ipaddress import ip_interface

import structlog
from msgspec import Struct

from hybridnet.ipam.book import AddressBook
from hybridnet.ipam.errors import NoAddress
from hybridnet.ipam.range import address_at
from hybridnet.ipam.selection import Choice
from hybridnet.manager.blocks import BlockStore
from hybridnet.model.address import Family
from hybridnet.model.instance import Claim, IPInstance

log = structlog.get_logger(__name__)


class Grant(Struct, frozen=True):
    """One address that a pod owns by a committed claim, and the subnet that it lies in."""

    family: Family
    address: int
    subnet: str
    network: str


class Allocator:
    """Gives and takes back addresses. *instances_of* returns the IPInstances of a pod's UID."""

    def __init__(
        self, book: AddressBook, blocks: BlockStore, instances_of: Callable[[str], list[IPInstance]]
    ) -> None:
        self._book = book
        self._blocks = blocks
        self._instances_of = instances_of

    async def allocate(self, owner: str, node: str, choice: Choice) -> list[Grant]:
        """One committed address per family of *choice* for the pod with UID *owner*.

        NoAddress when a family has none left (nothing is kept then), ApiError when the API refuses the claim.
        """
        await self._give_back_unfit(owner, choice)
        try:
            grants = await self._allocate_all(owner, node, choice)
        except NoAddress:
            await self.release_unrecorded(owner)
            raise
        await self._give_back_surplus(owner, grants)
        return grants

    async def release(self, family: Family, address: int, owner: str) -> bool:
        """Take *address* from *owner*; False when it was not the owner's."""
        return await self._blocks.release(family, address, owner)

    async def release_unrecorded(self, owner: str) -> int:
        """Give back all claims of *owner* that have no IPInstance. Returns how many there were."""
        recorded = self._recorded(owner)
        claims = [claim for claim in self._book.claims_of(owner) if claim not in recorded]
        await asyncio.gather(*(self.release(family, address, owner) for family, address in claims))
        return len(claims)

    async def _allocate_all(self, owner: str, node: str, choice: Choice) -> list[Grant]:
        granted = {family: self._existing(owner, family) for family, _ in choice.wants()}
        while missing := [(family, subnet) for family, subnet in choice.wants() if granted[family] is None]:
            picks = self._pick_all(owner, choice.network, missing)
            claim = Claim(uid=owner, node=node)
            try:
                answers = await asyncio.gather(
                    *(self._blocks.claim(family, address, claim) for family, address in picks),
                    return_exceptions=True,
                )
            finally:
                for family, address in picks:
                    self._book.ledgers[family].unmark(address)
            for (family, _), answer in zip(picks, answers, strict=True):
                if isinstance(answer, BaseException):
                    raise answer
                if answer is not None:
                    granted[family] = await self._accept(owner, family, answer)
        return [grant for grant in granted.values() if grant is not None]

    async def _accept(self, owner: str, family: Family, address: int) -> Grant | None:
        """The grant of a committed claim; given back when its subnet has gone in the meantime."""
        grant = self._grant(family, address)
        if grant is None:
            await self.release(family, address, owner)
        return grant

    def _pick_all(
        self, owner: str, network: str, wants: list[tuple[Family, str | None]]
    ) -> list[tuple[Family, int]]:
        picks: list[tuple[Family, int]] = []
        try:
            for family, subnet in wants:
                picks.append((family, self._book.pick(network, family, subnet, owner)[1]))
        except NoAddress:
            for family, address in picks:
                self._book.ledgers[family].unmark(address)
            raise
        return picks

    def _existing(self, owner: str, family: Family) -> Grant | None:
        """The claim that the pod has already; one with an IPInstance is preferred, then the lowest."""
        recorded = self._recorded(owner)
        claims = [claim for claim in self._book.claims_of(owner) if claim[0] is family]
        best = min(claims, key=lambda claim: (claim not in recorded, claim), default=None)
        return self._grant(*best) if best else None

    def _grant(self, family: Family, address: int) -> Grant | None:
        pool = self._book.pool_of(family, address)
        return Grant(family, address, pool.name, pool.network) if pool else None

    async def _give_back_unfit(self, owner: str, choice: Choice) -> None:
        """Drop claims without IPInstance that do not fit what the pod wants now."""
        recorded, wants = self._recorded(owner), dict(choice.wants())
        for family, address in self._book.claims_of(owner):
            pool = self._book.pool_of(family, address)
            fits = pool and pool.network == choice.network and wants.get(family, "") in (None, pool.name)
            if not fits and (family, address) not in recorded:
                await self.release(family, address, owner)

    async def _give_back_surplus(self, owner: str, grants: list[Grant]) -> None:
        """Drop claims beyond one per family that have no IPInstance: another manager was faster."""
        keep = {(grant.family, grant.address) for grant in grants} | self._recorded(owner)
        for family, address in self._book.claims_of(owner):
            if (family, address) not in keep:
                log.info("second claim given back", owner=owner, address=str(address_at(family, address)))
                await self.release(family, address, owner)

    def _recorded(self, owner: str) -> set[tuple[Family, int]]:
        found = set()
        for instance in self._instances_of(owner):
            try:
                address = ip_interface(instance.spec.address.ip).ip
            except ValueError:
                continue
            found.add((Family(address.version), int(address)))
        return found
