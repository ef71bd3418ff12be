"""Picking addresses, and reading them back after a restart: ours beside the algorithm of the original.

The original keeps every address of a subnet as a string in a list and walks it with a cursor past a table of used
ones; it cannot do a /8 or a /64, so there the baseline is our own /16: size must not matter. Each round runs the
baseline and ours one after the other; the best of the rounds counts. Rates are per second.
"""

import time
from collections.abc import Callable
from ipaddress import IPv4Address, ip_address

import msgspec

from hybridnet.ipam.book import AddressBook
from hybridnet.ipam.claims import read_block, write_block
from hybridnet.ipam.pool import SubnetPool
from hybridnet.ipam.range import parse_range
from hybridnet.model.address import Family
from hybridnet.model.instance import Address, Binding, Claim, IPBlock, IPInstance, IPInstanceSpec
from hybridnet.model.meta import ObjectMeta
from hybridnet.model.network import AddressRange
from report import Better, Result, compare, parser, publish

ROUNDS = 5
PICKS = 20_000
CLAIMS = 100_000


class Listed:
    """The original's algorithm: all addresses as strings, a cursor, and a table of used ones."""

    def __init__(self) -> None:
        first = int(IPv4Address("10.0.0.1"))
        self.addresses = [str(IPv4Address(first + n)) for n in range(65534)]
        self.used: dict[str, bool] = {}
        self.cursor = -1

    def pick(self) -> str | None:
        """The next unused address behind the cursor; None after a full circle."""
        size = len(self.addresses)
        for _ in range(size):
            self.cursor = (self.cursor + 1) % size
            address = self.addresses[self.cursor]
            if address not in self.used:
                self.used[address] = True
                return address
        return None


def pool(cidr: str) -> SubnetPool:
    spec = AddressRange(version="6" if ":" in cidr else "4", cidr=cidr)
    return SubnetPool("bench", "bench", parse_range(spec))


def rate(work: Callable[[], object], count: int) -> float:
    begin = time.perf_counter()
    for _ in range(count):
        work()
    return count / (time.perf_counter() - begin)


def fill(cidr: str) -> float:
    return rate(pool(cidr).pick, PICKS)


def fill_listed() -> float:
    return rate(Listed().pick, PICKS)


def nearly_full() -> float:
    """All but one address in use: free one behind the cursor, pick it."""
    subnet = pool("10.0.0.0/16")
    while subnet.pick() is not None:
        pass
    victim = subnet.range.start + 30_000

    def again() -> None:
        subnet.free(victim)
        assert subnet.pick() == victim

    return rate(again, PICKS)


def nearly_full_listed() -> float:
    subnet = Listed()
    while subnet.pick() is not None:
        pass
    victim = subnet.addresses[30_000]

    def again() -> None:
        del subnet.used[victim]
        assert subnet.pick() == victim

    return rate(again, 20)


def refused() -> float:
    subnet = pool("10.0.0.0/16")
    while subnet.pick() is not None:
        pass
    return rate(subnet.pick, PICKS)


def refused_listed() -> float:
    subnet = Listed()
    while subnet.pick() is not None:
        pass
    return rate(subnet.pick, 20)


def read_blocks(text: list[bytes]) -> float:
    """100,000 claims from the blocks that hold them, into the ledger."""
    decoder = msgspec.json.Decoder(IPBlock)
    begin = time.perf_counter()
    ledger = AddressBook(lambda _pool, _freed: None).ledgers[Family.V4]
    for item in text:
        _, number, claims = read_block(decoder.decode(item))
        ledger.adopt(number, "1", claims)
    return CLAIMS / (time.perf_counter() - begin)


def read_instances(text: list[bytes]) -> float:
    """The same from one object per address, as the original reads them."""
    decoder = msgspec.json.Decoder(IPInstance)
    begin = time.perf_counter()
    used = {}
    for item in text:
        instance = decoder.decode(item)
        used[int(ip_address(instance.spec.address.ip.split("/")[0]))] = instance.spec.binding.pod_uid
    return CLAIMS / (time.perf_counter() - begin)


def restart_texts() -> tuple[list[bytes], list[bytes]]:
    encode, first = msgspec.json.Encoder().encode, 10 << 24
    claims = {n: Claim(uid=f"0b6a77cc-1d2e-4f00-9abc-{n:012}", node=f"node{n % 500}") for n in range(CLAIMS)}
    blocks = [
        write_block(
            Family.V4,
            (first + base) // 256,
            "1",
            {n - base: claims[n] for n in range(base, min(base + 256, CLAIMS))},
        )
        for base in range(0, CLAIMS, 256)
    ]
    instances = (
        IPInstance(
            metadata=ObjectMeta(name=f"10-{n}", namespace="default", labels={"a": "b"}),
            spec=IPInstanceSpec(
                network="net",
                subnet="sub",
                address=Address(version="4", ip=f"{IPv4Address(first + n)}/8", mac="02:12:34:00:00:00"),
                binding=Binding(node_name=claim.node, pod_uid=claim.uid, pod_name="pod"),
            ),
        )
        for n, claim in claims.items()
    )
    return [encode(block) for block in blocks], [encode(instance) for instance in instances]


def main() -> None:
    chosen = parser(__doc__).parse_args()
    blocks, instances = restart_texts()
    cases: list[tuple[str, Callable[[], float], Callable[[], float], float]] = [
        ("pick from an empty /16 (/s)", fill_listed, lambda: fill("10.0.0.0/16"), 0.1),
        ("pick from a /8, baseline ours from a /16 (/s)", small, lambda: fill("10.0.0.0/8"), 0.5),
        ("pick from a /64, baseline ours from a /16 (/s)", small, lambda: fill("fd00::/64"), 0.5),
        ("pick the last free one of a /16 (/s)", nearly_full_listed, nearly_full, 100),
        ("find a /16 full (/s)", refused_listed, refused, 1000),
        ("read 100,000 claims (claims/s)", lambda: read_instances(instances), lambda: read_blocks(blocks), 1),
    ]
    publish("addresses", [measure(*case) for case in cases], as_json=chosen.json)


def small() -> float:
    return fill("10.0.0.0/16")


def measure(name: str, baseline: Callable[[], float], ours: Callable[[], float], target: float) -> Result:
    rounds = [(baseline(), ours()) for _ in range(ROUNDS)]
    theirs, mine = max(r[0] for r in rounds), max(r[1] for r in rounds)
    return compare(name, mine, theirs, target, Better.HIGHER)


if __name__ == "__main__":
    main()
