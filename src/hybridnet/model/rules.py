"""What one object alone can show to be wrong, as CEL rules that the API server itself applies.

So the refusals hold without a webhook and also while all of our processes are down. What needs a second object
(overlaps, an unknown network, a second overlay) is judged by the manager, see ``ipam.validity``. CEL cannot
compare addresses by size; :func:`_below` does it bit by bit, with prefixes. ``ip()`` and ``cidr()`` need
Kubernetes 1.31.
"""

from typing import Any

from hybridnet.model.network import (
    DEFAULT_MODE,
    AddressRange,
    BGPPeer,
    Network,
    NetworkConfig,
    NetworkMode,
    NetworkSpec,
    NetworkType,
    SubnetSpec,
)

Rule = dict[str, Any]

MAX_VLAN = 4094
"""802.1Q keeps 0 for untagged frames, 4095 for itself."""
MAX_VNI = 2**24 - 1
MAX_AS = 2**32 - 1

_OCTETS = [*range(0, 128, 8)]
_BITS = [*range(1, 9)]
_PREFIXES = f"'{''.join(f'{bits:<3}' for bits in range(129))}'"
"""Numbers as text, three characters each: the API server has no bound for the length of ``string(int)``, and
refuses a rule whose cost it cannot bound."""


def _rule(cel: str, message: str, field: str = "", *, told: str = "", reason: str = "") -> Rule:
    """*told* is CEL for a message with values in it, *message* what is said when that cannot be computed."""
    rule = {"rule": cel, "message": message}
    if told:
        rule["messageExpression"] = told
    if field:
        rule["fieldPath"] = f".{field}"
    if reason:
        rule["reason"] = f"FieldValue{reason}"
    return rule


def _given(field: str, owner: str = "self") -> str:
    """Whether a text or a list is there and not empty."""
    return f"(has({owner}.{field}) && size({owner}.{field}) > 0)"


def _type(owner: str = "self") -> str:
    return f"({_given('type', owner)} ? {owner}.type : '{NetworkType.UNDERLAY}')"


def _mode(owner: str = "self") -> str:
    overlay, bgp, vlan = (
        DEFAULT_MODE[t] for t in (NetworkType.OVERLAY, NetworkType.GLOBAL_BGP, NetworkType.UNDERLAY)
    )
    kind = _type(owner)
    default = f"{kind} == '{NetworkType.OVERLAY}' ? '{overlay}'"
    default += f" : {kind} == '{NetworkType.GLOBAL_BGP}' ? '{bgp}' : '{vlan}'"
    return f"({_given('mode', owner)} ? {owner}.mode : {default})"


def _is(mode: NetworkMode) -> str:
    return f"{_mode()} == '{mode}'"


def _between(low: int, high: int) -> str:
    return f"(self.netID >= {low} && self.netID <= {high})"


def _unchanged(field: str) -> str:
    """Whether an optional field is as before; absent is not the same as its zero value."""
    both = f"has(self.{field}) == has(oldSelf.{field})"
    return f"{both} && (!has(self.{field}) || self.{field} == oldSelf.{field})"


def _same_text(field: str) -> str:
    """Whether a text is as before; absent and empty are the same."""
    values = (f"({_given(field, owner)} ? {owner}.{field} : '')" for owner in ("self", "oldSelf"))
    return " == ".join(values)


RECREATE = "delete the object and create it anew to change it"

_NETWORK = [
    _rule("has(self.spec)", "a Network needs a spec: an Underlay network at least spec.nodeSelector"),
]

_NETWORK_SPEC = [
    _rule(
        f"{_type()} == ({_is(NetworkMode.VXLAN)} ? '{NetworkType.OVERLAY}' : "
        f"{_is(NetworkMode.GLOBAL_BGP)} ? '{NetworkType.GLOBAL_BGP}' : '{NetworkType.UNDERLAY}')",
        "modes VLAN, Bridge and BGP need type Underlay, VXLAN needs Overlay, GlobalBGP needs GlobalBGP: "
        "correct type or mode",
        "mode",
    ),
    _rule(
        f"{_type()} != '{NetworkType.UNDERLAY}' || {_given('nodeSelector')}",
        "an Underlay network needs nodeSelector: the labels of the nodes on its segment",
        "nodeSelector",
        reason="Required",
    ),
    _rule(
        f"{_type()} == '{NetworkType.UNDERLAY}' || !{_given('nodeSelector')}",
        "only an Underlay network has nodeSelector: leave it out",
        "nodeSelector",
        reason="Forbidden",
    ),
    _rule(
        f"!({_is(NetworkMode.VXLAN)}) || has(self.netID)",
        "an Overlay network needs netID, the VXLAN network identifier (0 to 16777215)",
        "netID",
        reason="Required",
    ),
    _rule(
        f"!({_is(NetworkMode.BGP)}) || has(self.netID)",
        "a BGP network needs netID, the AS number of the nodes (1 to 4294967295)",
        "netID",
        reason="Required",
    ),
    _rule(
        f"!({_is(NetworkMode.GLOBAL_BGP)}) || !has(self.netID)",
        "a GlobalBGP network has no netID: leave it out",
        "netID",
        reason="Forbidden",
    ),
    _rule(
        f"!({_is(NetworkMode.BRIDGE)}) || !has(self.netID) || self.netID == 0",
        "a Bridge network is untagged: leave netID out, or use mode VLAN",
        "netID",
    ),
    _rule(
        f"!({_is(NetworkMode.VLAN)}) || !has(self.netID) || {_between(0, MAX_VLAN)}",
        f"netID of a VLAN network is a VLAN id: 0 (untagged) to {MAX_VLAN}",
        "netID",
    ),
    _rule(
        f"!({_is(NetworkMode.VXLAN)}) || !has(self.netID) || {_between(0, MAX_VNI)}",
        f"netID of an Overlay network is a VXLAN network identifier: 0 to {MAX_VNI}",
        "netID",
    ),
    _rule(
        f"!({_is(NetworkMode.BGP)}) || !has(self.netID) || {_between(1, MAX_AS)}",
        f"netID of a BGP network is an AS number: 1 to {MAX_AS}",
        "netID",
    ),
    _rule(
        f"!({_is(NetworkMode.BGP)}) || (has(self.config) && {_given('bgpPeers', 'self.config')})",
        "a BGP network needs config.bgpPeers: the routers that its nodes speak with",
        "config",
        reason="Required",
    ),
    _rule(
        f"{_is(NetworkMode.BRIDGE)} || !has(self.config) || !{_given('bridge', 'self.config')}",
        "only mode Bridge has config.bridge: leave it out, or set mode to Bridge",
        "config",
        reason="Forbidden",
    ),
    _rule(f"{_type()} == {_type('oldSelf')}", f"type is immutable: {RECREATE}", "type"),
    _rule(f"{_mode()} == {_mode('oldSelf')}", f"mode is immutable: {RECREATE}", "mode"),
    _rule(_unchanged("netID"), f"netID is immutable: {RECREATE}", "netID"),
]

_NETWORK_CONFIG = [
    _rule(
        f"!{_given('bridge')} || self.bridge.matches('^[^/\\\\s]+$') && self.bridge != '.' && self.bridge != '..'",
        "bridge is the name of a network device: no blanks, no slash",
        "bridge",
    ),
]

_PEER = [
    _rule(
        "isIP(self.address)",
        "address of a BGP peer must be an IPv4 or IPv6 address",
        "address",
        told="'\"%s\" is not an IP address: write the address of the BGP peer'.format([self.address])",
    ),
]

_SUBNET_SPEC = [
    _rule("self.network == oldSelf.network", f"network is immutable: {RECREATE}", "network"),
    _rule(_unchanged("netID"), f"netID is immutable: {RECREATE}", "netID"),
]


def _network(address: str, bits: str) -> str:
    """The first *bits* bits of *address*, the rest zero."""
    return (
        f"cidr({address} + '/' + {_PREFIXES}.substring(3 * ({bits}), 3 * ({bits}) + 3).trim()).masked().ip()"
    )


def _bits_of(address: str) -> str:
    return f"(ip({address}).family() == 4 ? 32 : 128)"


def _below(one: str, other: str) -> str:
    """Whether address *one* is smaller than *other*, of the same family.

    It is when, behind a common prefix, *one* has a 0 where *other* has a 1.
    """
    common = f"{_network(one, 'o + b')} == {_network(other, 'o + b - 1')}"
    differ = f"!({_network(one, 'o + b')} == {_network(other, 'o + b')})"
    return f"{_OCTETS}.exists(o, {_BITS}.exists(b, o + b <= {_bits_of(one)} && {common} && {differ}))"


def _only_ones(address: str, last: str) -> str:
    """Whether the host bits of *address*, up to bit *last*, are all 1: for the full length, the last address."""
    outside = f"o + b <= cidr(self.cidr).prefixLength() || o + b > {last}"
    one = f"!({_network(address, 'o + b')} == {_network(address, 'o + b - 1')})"
    return f"{_OCTETS}.all(o, {_BITS}.all(b, {outside} || {one}))"


_SOUND = "isCIDR(self.cidr)"
_START, _END = _given("start"), _given("end")


def _fine(*fields: str) -> str:
    """Whether the CIDR and these addresses can be read."""
    return " && ".join((_SOUND, *(f"{_given(field)} && isIP(self.{field})" for field in fields)))


def _address_rules(field: str) -> list[Rule]:
    given = _given(field)
    return [
        _rule(
            f"!{given} || isIP(self.{field})",
            f"{field} must be an IP address",
            field,
            told=f"'{field} \"%s\" is not an IP address'.format([self.{field}])",
        ),
        _rule(
            f"!({_fine(field)}) || cidr(self.cidr).containsIP(self.{field})",
            f"{field} must lie inside cidr",
            field,
            told=f"'{field} %s lies outside %s'.format([self.{field}, self.cidr])",
        ),
    ]


def _list_rules(field: str) -> list[Rule]:
    outside = "isIP(a) && !cidr(self.cidr).containsIP(a)"
    return [
        _rule(
            f"!has(self.{field}) || self.{field}.all(a, isIP(a))",
            f"{field} must be IP addresses",
            field,
            told=f"'{field}: \"%s\" is not an IP address'.format([self.{field}.filter(a, !isIP(a))[0]])",
        ),
        _rule(
            f"!has(self.{field}) || !{_SOUND} || !self.{field}.exists(a, {outside})",
            f"{field} must lie inside cidr",
            field,
            told=f"'{field}: %s lies outside %s'.format([self.{field}.filter(a, {outside})[0], self.cidr])",
        ),
    ]


_RANGE = [
    _rule(
        _SOUND,
        "cidr must be a network such as 192.168.0.0/24 or fd00::/64",
        "cidr",
        told="'\"%s\" is not a network such as 192.168.0.0/24 or fd00::/64'.format([self.cidr])",
    ),
    _rule(
        f"!{_SOUND} || cidr(self.cidr).masked() == cidr(self.cidr)",
        "cidr has host bits set: write the network address",
        "cidr",
        told="'%s has host bits set: write %s'.format([self.cidr, string(cidr(self.cidr).masked())])",
    ),
    _rule(
        f"!{_SOUND} || cidr(self.cidr).prefixLength() <= (cidr(self.cidr).ip().family() == 4 ? 30 : 126)",
        "cidr is too small for pods: the longest prefix is /30 (IPv4) or /126 (IPv6)",
        "cidr",
    ),
    _rule(
        f"!{_SOUND} || string(cidr(self.cidr).ip().family()) == self.version",
        "version must be that of cidr",
        "version",
        told="'%s is IPv%s: version must be the same'.format([self.cidr, string(cidr(self.cidr).ip().family())])",
    ),
    *(rule for field in ("start", "end", "gateway") for rule in _address_rules(field)),
    *(rule for field in ("reservedIPs", "excludeIPs") for rule in _list_rules(field)),
    _rule(
        f"!({_fine('start', 'end')}) || !({_below('self.end', 'self.start')})",
        "no usable address: start must not be behind end",
        "start",
        told="'no usable address: start %s is behind end %s'.format([self.start, self.end])",
    ),
    _rule(
        f"!({_fine('start')} && self.version == '4') || {_END} || !({_only_ones('self.start', '32')})",
        "no usable address: start is the broadcast address, and end is before it by default",
        "start",
    ),
    _rule(
        f"!({_fine('end')}) || {_START} || !(ip(self.end) == cidr(self.cidr).ip())",
        "no usable address: end is the network address, and start is behind it by default",
        "end",
    ),
    _rule("self.version == oldSelf.version", f"version is immutable: {RECREATE}", "version"),
    _rule("self.cidr == oldSelf.cidr", f"cidr is immutable: {RECREATE}", "cidr"),
    *(_rule(_same_text(field), f"{field} is immutable: {RECREATE}", field) for field in ("start", "gateway")),
    _rule(
        f"!{_given('end', 'oldSelf')} || !{_END} || self.end == oldSelf.end || !isIP(oldSelf.end) || "
        f"!isIP(self.end) || !({_below('self.end', 'oldSelf.end')})",
        "end can only grow, because addresses behind it may be in use",
        "end",
        told="'end can only grow, because addresses behind %s may be in use'.format([self.end])",
    ),
    _rule(
        f"{_given('end', 'oldSelf')} || !({_fine('end')}) || "
        f"{_only_ones('self.end', '(ip(self.end).family() == 4 ? 31 : 128)')}",
        "end can only grow, and without it the subnet reached to the last address: leave it out",
        "end",
    ),
    _rule(
        f"!{_given('end', 'oldSelf')} || {_END} || !isIP(oldSelf.end) || !{_SOUND} || "
        f"self.version == '6' || !({_only_ones('oldSelf.end', '32')})",
        "end can only grow, and its default is the address before broadcast: leave it as it was",
        "end",
    ),
    _rule(
        "(has(self.excludeIPs) ? self.excludeIPs : []) == (has(oldSelf.excludeIPs) ? oldSelf.excludeIPs : []) || "
        "has(self.excludeIPs) && has(oldSelf.excludeIPs) && "
        "sets.equivalent(self.excludeIPs, oldSelf.excludeIPs)",
        f"excludeIPs are immutable, their order aside: {RECREATE}",
        "excludeIPs",
    ),
]

RULES: dict[type, list[Rule]] = {
    Network: _NETWORK,
    NetworkSpec: _NETWORK_SPEC,
    NetworkConfig: _NETWORK_CONFIG,
    BGPPeer: _PEER,
    SubnetSpec: _SUBNET_SPEC,
    AddressRange: _RANGE,
}
"""Struct -> the rules on it; ``self`` is the struct, ``oldSelf`` what it was before an update."""
