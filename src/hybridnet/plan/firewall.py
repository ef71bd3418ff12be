"""Our one nftables table: classification, replies, masquerade, loop guard.

Written for the cost of a packet: the class of a pod's packet is one hash lookup by source address, whatever
the number of subnets (interval maps cost five to ten times that, and libnftables reads all of them back on
every change); packets from or to a pod leave the forward chain at its first rules.

* ``from_pod`` marks what pods send. An answer on a connection that a node opened through the tunnel goes back
  through the tunnel; an answer on a connection whose destination this node translated (NodePort) is routed as
  the node's own traffic, because it carries the node's address on the wire.
* ``nat`` masquerades overlay pods towards the outside, never towards pods or into the tunnel.
* ``guard`` drops what would leave by the device that it came in by: an unassigned address of a pod subnet
  would travel between gateway and node until its TTL ends.
* ``clear`` takes our mark bits away before a packet leaves: the outer route lookup of VXLAN inherits the mark
  and would loop into its own device.
* The egress chain of the tunnel sends broadcast and multicast to the head-end replication entry, so the FDB
  needs no all-zero entry and unknown unicast is never flooded.
"""

from collections.abc import Iterable

from hybridnet.model.address import Family, IPAddress, IPNetwork
from hybridnet.plan import layout
from hybridnet.plan.segment import Segment
from hybridnet.plan.state import NftSet, NftTable
from hybridnet.plan.view import NodeView

_TYPE = {Family.V4: "ipv4_addr", Family.V6: "ipv6_addr"}
_IP = {Family.V4: "ip", Family.V6: "ip6"}


def pod_map(family: Family) -> str:
    """Name of the map from pod address to class mark."""
    return f"pod{family.value}"


def node_set(family: Family) -> str:
    """Name of the set of other nodes' addresses."""
    return f"node{family.value}"


def segment_set(family: Family) -> str:
    """Name of the set of underlay CIDRs that this node serves."""
    return f"segment{family.value}"


def element(address: IPAddress | IPNetwork) -> str:
    """An address or prefix as a set element."""
    return str(address)


def plan_tables(view: NodeView, segments: Iterable[Segment], tunnel: str) -> list[NftTable]:
    """The tables of the node; *tunnel* is the VXLAN device, or empty when there is none."""
    native = [s for s in segments if s.native]
    devices = sorted({s.device for s in native})
    families = sorted(view.families)
    chains = [_from_pod(families, tunnel), _nat(tunnel), _guard(families, devices, tunnel), _clear()]
    sets = tuple(s for family in families for s in _sets(family, native))
    tables = [NftTable("inet", layout.NFT_TABLE, "\n".join(chains), sets)]
    if tunnel:
        tables.append(NftTable("netdev", layout.NFT_TABLE, _egress(tunnel)))
    return tables


def _sets(family: Family, native: list[Segment]) -> tuple[NftSet, ...]:
    kind = _TYPE[family]
    cidrs = sorted({s.subnet.cidr for s in native if s.subnet.family is family}, key=str)
    return (
        NftSet(pod_map(family), f"type {kind} : mark;"),
        NftSet(node_set(family), f"type {kind};"),
        NftSet(
            segment_set(family),
            f"type {kind}; flags interval;",
            tuple((element(cidr), "") for cidr in cidrs),
        ),
    )


def _from_pod(families: list[Family], tunnel: str) -> str:
    bit, group = f"0x{layout.MARK_TUNNEL:x}", layout.POD_GROUP
    lines = []
    if tunnel:
        lines += [
            f'iifname "{tunnel}" ct state new {_IP[f]} saddr @{node_set(f)} ct mark set ct mark or {bit}'
            for f in families
        ]
    lines += [f"iifgroup != {group} return", "ct direction reply goto answer", "goto classify"]
    classify = [f"meta mark set {_IP[f]} saddr map @{pod_map(f)}" for f in families]
    return "\n".join(
        [
            _chain("classify", "", classify),
            _chain(
                "answer",
                "",
                [
                    f"ct mark and {bit} == {bit} meta mark set {bit} return",
                    "ct status dnat return",
                    "goto classify",
                ],
            ),
            _chain("from_pod", "type filter hook prerouting priority mangle; policy accept;", lines),
        ]
    )


def _nat(tunnel: str) -> str:
    nat = layout.class_mark(layout.CLASS_OVERLAY_NAT)
    lines = [
        f"meta mark and 0x{layout.CLASS_MASK:x} != 0x{nat:x} return",
        f"oifgroup {layout.POD_GROUP} return",
    ]
    if tunnel:
        lines.append(f'oifname "{tunnel}" return')
    lines.append("masquerade")
    return _chain("nat", "type nat hook postrouting priority srcnat; policy accept;", lines)


def _guard(families: list[Family], devices: list[str], tunnel: str) -> str:
    drop = "ct status and dnat == 0 counter drop"
    lines = [f"iifgroup {layout.POD_GROUP} accept", f"oifgroup {layout.POD_GROUP} accept"]
    if tunnel:
        lines.append(f'iifname "{tunnel}" oifname "{tunnel}" {drop}')
    lines += [
        f'iifname "{device}" oifname "{device}" {_IP[f]} daddr @{segment_set(f)} {drop}'
        for device in devices
        for f in families
    ]
    return _chain("guard", "type filter hook forward priority filter; policy accept;", lines)


def _clear() -> str:
    ours, keep = layout.MARK_ALL, 0xFFFF_FFFF ^ layout.MARK_ALL
    return _chain(
        "clear",
        "type filter hook postrouting priority srcnat + 10; policy accept;",
        [f"meta mark and 0x{ours:x} != 0 meta mark set meta mark and 0x{keep:x}"],
    )


def _egress(tunnel: str) -> str:
    group = "01:00:00:00:00:00"
    return _chain(
        "tunnel",
        f'type filter hook egress device "{tunnel}" priority 0; policy accept;',
        [f"ether daddr and {group} == {group} ether daddr set {layout.BROADCAST_MAC}"],
    )


def _chain(name: str, hook: str, lines: list[str]) -> str:
    body = "\n".join(f"  {line}" for line in ([hook] if hook else []) + lines)
    return f"chain {name} {{\n{body}\n}}"
