"""Many pods at once: every address once, and nothing left afterwards."""

import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from hybridnet.kernel.address import dump_addresses
from hybridnet.kernel.link import links
from hybridnet.kernel.namespace import Namespace
from hybridnet.kernel.neighbour import dump_proxies
from hybridnet.kernel.netlink import Rtnl
from hybridnet.kernel.nftables import Nft
from hybridnet.kernel.route import dump_routes
from hybridnet.lab import system
from hybridnet.lab.cluster import Cluster
from hybridnet.plan import layout
from tests.lab.workloads import (
    FAMILY,
    TYPE,
    addresses,
    apply,
    eventually,
    items,
    namespace,
    running,
    sandboxes,
    workload,
)

COUNT = 200


def crowd(namespace_of: str, cluster: Cluster) -> None:
    half = COUNT // 2
    apply(
        cluster,
        workload("Deployment", "over", half, {TYPE: "Overlay", FAMILY: "DualStack"}),
        workload("Deployment", "under", half, {TYPE: "Underlay", FAMILY: "DualStack"}),
        namespace=namespace_of,
    )


def leftovers(cluster: Cluster) -> dict[str, list[str]]:
    """What the nodes still hold of pods that are not there any more."""
    found: dict[str, list[str]] = {}
    for name in cluster.topology.node_names:
        known = {a["address"].split("/")[0] for r in sandboxes(cluster, name) for a in r["addresses"]}
        with Namespace.open(cluster.topology.namespace_path(name)) as opened, Rtnl(opened) as rtnl:
            devices = {r["device"] for r in sandboxes(cluster, name)}
            extra = [link.name for link in links(rtnl) if link.group == layout.POD_GROUP]
            rest = [d for d in extra if d not in devices]
            routes = dump_routes(rtnl, str, table=layout.TABLE_LOCAL)
            rest += [str(r.destination) for r in routes if str(r.destination.network_address) not in known]
            rest += [str(p.address) for p in dump_proxies(rtnl, str) if str(p.address) not in known]
            listing = Nft(opened).run("list map inet hybridnet pod4") + Nft(opened).run(
                "list map inet hybridnet pod6"
            )
            rest += [w for w in listing.replace(",", " ").split() if _is_address(w) and w not in known]
            assert dump_addresses(rtnl, str)
        rest = [r for r in rest if r != "169.254.1.1/32"]
        if rest:
            found[name] = rest
    return found


def _is_address(word: str) -> bool:
    return (word[0].isdigit() and word.count(".") == 3) or word.startswith("fd")


def check_distinct(cluster: Cluster, ns: str) -> None:
    found = addresses(cluster, ns)
    assert len(found) == COUNT
    assert {len(ips) for ips in found.values()} == {2}
    everything = [ip for ips in found.values() for ip in ips]
    assert len(set(everything)) == len(everything) == 2 * COUNT
    records = items(cluster, "ipinstances", ns)
    assert len({r["spec"]["address"]["ip"] for r in records}) == len(records) == 2 * COUNT


def claims(cluster: Cluster) -> int:
    return sum(len(b["spec"].get("claims", {})) for b in items(cluster, "ipblocks"))


@pytest.mark.spec("A28", "T15")
@pytest.mark.parametrize("turn", [1, 2])
def test_200_pods_at_once_are_all_distinct_and_leave_nothing(cluster: Cluster, turn: int) -> None:
    before = claims(cluster)
    with namespace(cluster, f"churn{turn}") as ns:
        crowd(ns, cluster)
        eventually("all pods run", lambda: running(cluster, ns, COUNT), 240)
        check_distinct(cluster, ns)
    eventually("all IPInstances are gone", lambda: not items(cluster, "ipinstances", ns), 60)
    eventually("all claims are gone", lambda: claims(cluster) == before, 60)
    eventually("links, routes, neighbours, elements are gone", lambda: not leftovers(cluster), 60)


@contextmanager
def second_leader(cluster: Cluster) -> Iterator[None]:
    """Another manager that leads without asking for the lease."""
    logs = cluster.folder / "logs"
    manager = system.start_manager(
        cluster.plane, cluster.control_plane_place, logs, identity="usurper", leader_election=False
    )
    try:
        eventually("both lead", lambda: '"leading"' in manager.log.read_text(), 60)
        yield
        manager.check()
    finally:
        manager.stop()


@pytest.mark.spec("F2")
def test_two_managers_that_lead_at_once_give_no_address_twice(cluster: Cluster) -> None:
    with second_leader(cluster), namespace(cluster, "leaders") as ns:
        crowd(ns, cluster)
        eventually("all pods run", lambda: running(cluster, ns, COUNT), 240)
        time.sleep(2)
        check_distinct(cluster, ns)
    eventually("all claims are gone", lambda: not items(cluster, "ipinstances", "leaders"), 60)
