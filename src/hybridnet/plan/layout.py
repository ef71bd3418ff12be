"""Every number that we take from a shared name space of the kernel, in one place.

Rule priorities, tables, mark bits and the interface group are fixed, so the order of lookups cannot depend on
history (the original appended rules at the first free priority, and gaps inverted their order). Mark bits
stay clear of kube-proxy's 0x4000 and 0x8000.

The lookup that these numbers spell, for each family::

    2000  table 39999                     a pod of this node, whoever asks
    2010  table 40000                     an overlay subnet, whoever asks: into the tunnel
    2020  fwmark TUNNEL  table 40001      an answer to a node that asked through the tunnel
    2030  no class       goto 6990        the node's own and foreign traffic never meets a pod table
    2040  class 1        table 40002      overlay pod with masquerade: underlay pods by tunnel, else main
    2050  class 2        table 40003      overlay pod without masquerade: nothing leaves but by tunnel
    2100+ class 16+n     table 10000+n    underlay pod: its segment and its gateway
    6990  nop
"""

POD_GROUP = 0x6879
"""Interface group of the host side of every pod link ("hy"): nftables tells a pod's packet by it."""

TABLE_LOCAL = 39999
TABLE_TO_OVERLAY = 40000
TABLE_TUNNEL = 40001
TABLE_FROM_OVERLAY_NAT = 40002
TABLE_FROM_OVERLAY = 40003
TABLE_UNDERLAY = 10000
UNDERLAY_SLOTS = 4000

MANAGED_TABLES = frozenset(
    (*range(TABLE_UNDERLAY, TABLE_UNDERLAY + UNDERLAY_SLOTS), *range(TABLE_LOCAL, 40004))
)
"""Tables that hold nothing but ours."""

PRIORITY_LOCAL = 2000
PRIORITY_TO_OVERLAY = 2010
PRIORITY_TUNNEL = 2020
PRIORITY_SKIP = 2030
PRIORITY_FROM_OVERLAY_NAT = 2040
PRIORITY_FROM_OVERLAY = 2050
PRIORITY_UNDERLAY = 2100
PRIORITY_END = 6990

MARK_TUNNEL = 0x1000_0000
CLASS_MASK = 0x0FFF_0000
CLASS_SHIFT = 16
MARK_ALL = MARK_TUNNEL | CLASS_MASK
CLASS_OVERLAY_NAT = 1
CLASS_OVERLAY = 2
CLASS_UNDERLAY = 16

NFT_TABLE = "hybridnet"
VXLAN_PREFIX = "hybrvx"
VXLAN_PORT = 8472
"""Linux's own default and the original's, so that both can share a segment during a migration."""

VXLAN_OVERHEAD = {4: 50, 6: 70}
"""Outer Ethernet, IP, UDP and VXLAN headers in bytes, by the family of the tunnel's endpoints (RFC 7348)."""

POD_GATEWAY_MAC = "ee:ee:ee:ee:ee:ee"
BROADCAST_MAC = "ff:ff:ff:ff:ff:ff"


def class_mark(number: int) -> int:
    """The mark of a traffic class."""
    return number << CLASS_SHIFT
