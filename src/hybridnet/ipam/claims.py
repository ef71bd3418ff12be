"""What one compare-and-swap of a block writes: the claims and releases that wait for it, merged into the truth.

Several pods share one update. Every attempt starts from the block as last read, so a request that lost its
address to another holder, or whose owner turns out to have a claim already (another manager was faster), is
answered without being written.
"""

from collections.abc import Iterable, Mapping
from ipaddress import ip_network

from msgspec import Struct

from hybridnet.ipam.range import address_at
from hybridnet.model.address import BLOCK_SIZE, Family, block_name, block_of
from hybridnet.model.instance import Claim, IPBlock, IPBlockSpec
from hybridnet.model.meta import ObjectMeta


class ClaimRequest(Struct, frozen=True):
    """*claim* wants *offset*. The answer is the offset that the owner now has, or None: taken by another.

    Unless it is *exact*, an owner that has a claim in the block already is answered with that one.
    """

    offset: int
    claim: Claim
    exact: bool = False


class ReleaseRequest(Struct, frozen=True):
    """*owner* gives *offset* back. The answer is the offset when it was the owner's, else None."""

    offset: int
    owner: str


BlockRequest = ClaimRequest | ReleaseRequest


def merge(
    claims: Mapping[int, Claim], requests: Iterable[BlockRequest]
) -> tuple[dict[int, Claim], list[int | None]]:
    """The claims to write, and the answer of each request once that is written."""
    result = dict(claims)
    answers = [
        _claim(result, request) if isinstance(request, ClaimRequest) else _release(result, request)
        for request in requests
    ]
    return result, answers


def read_block(block: IPBlock) -> tuple[Family, int, dict[int, Claim]]:
    """Family, block number (address // 256) and claims. ValueError when the object makes no sense."""
    cidr = ip_network(block.spec.cidr)
    family = Family(cidr.version)
    if cidr.num_addresses != BLOCK_SIZE:
        raise ValueError(f"{block.spec.cidr} is no block of {BLOCK_SIZE} addresses")
    if block_name(cidr) != block.name:
        raise ValueError(f"the block of {block.spec.cidr} is called {block_name(cidr)}")
    claims = {int(offset): Claim.parse(text) for offset, text in block.spec.claims.items()}
    if any(not 0 <= offset < BLOCK_SIZE for offset in claims):
        raise ValueError(f"an offset is not between 0 and {BLOCK_SIZE - 1}")
    return family, int(cidr.network_address) // BLOCK_SIZE, claims


def write_block(family: Family, number: int, version: str, claims: Mapping[int, Claim]) -> IPBlock:
    """The IPBlock object with these claims, offsets in order; *version* is the resourceVersion to swap."""
    cidr, _ = block_of(address_at(family, number * BLOCK_SIZE))
    return IPBlock(
        metadata=ObjectMeta(name=block_name(cidr), resource_version=version),
        spec=IPBlockSpec(
            cidr=str(cidr), claims={str(offset): str(claims[offset]) for offset in sorted(claims)}
        ),
    )


def _claim(claims: dict[int, Claim], request: ClaimRequest) -> int | None:
    holder = claims.get(request.offset)
    if holder is not None and holder.uid == request.claim.uid:
        return request.offset
    existing = next((offset for offset, claim in claims.items() if claim.uid == request.claim.uid), None)
    if existing is not None and not request.exact:
        return existing
    if holder is not None:
        return None
    claims[request.offset] = request.claim
    return request.offset


def _release(claims: dict[int, Claim], request: ReleaseRequest) -> int | None:
    holder = claims.get(request.offset)
    if holder is None or holder.uid != request.owner:
        return None
    del claims[request.offset]
    return request.offset
