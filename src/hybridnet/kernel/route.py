"""Routes: read those of ours, write, delete.

A new route is created exclusively, so a foreign route to the same destination is reported and not overwritten;
only a route known to be ours is replaced. Deletion names our protocol, so it cannot hit another's route either.
"""

import struct
from collections.abc import Callable, Iterator
from ipaddress import IPv4Network, IPv6Network

from hybridnet.kernel.describe import About
from hybridnet.kernel.errors import ObjectNotFound
from hybridnet.kernel.netlink import (
    AF,
    FAMILY_OF_AF,
    NLM_F_CREATE,
    NLM_F_EXCL,
    NLM_F_REPLACE,
    Message,
    Rtnl,
    attribute,
    parse,
    read_address,
    read_u32,
    u32,
)
from hybridnet.model.address import Family, IPNetwork
from hybridnet.plan.state import DEFAULT_ROUTE, PROTOCOL, Route, RouteType, Scope

RTM_NEWROUTE, RTM_DELROUTE, RTM_GETROUTE = 24, 25, 26

_RTMSG = struct.Struct("=BBBBBBBBI")
_DST, _OIF, _GATEWAY, _PREFSRC, _TABLE = 1, 4, 5, 7, 15
_PRIORITY, _MULTIPATH = 6, 9
_METRIC = {Family.V4: 0, Family.V6: 1024}
"""What the kernel gives a route that is written without one."""
_ONLINK = 4
_CLONED = 0x200
_TYPES = {RouteType.UNICAST: 1, RouteType.BLACKHOLE: 6, RouteType.UNREACHABLE: 7, RouteType.THROW: 9}
_TYPE_OF = {number: kind for kind, number in _TYPES.items()}
_SCOPE_NOWHERE = 255


def set_route(route: Route, index: int, *, replace: bool) -> Message:
    """Create *route* on the device with *index* (0: no device); *replace* only what is known to be ours."""
    flags = NLM_F_CREATE | (NLM_F_REPLACE if replace else NLM_F_EXCL)
    scope = Scope.LINK if _is_direct(route) else Scope.UNIVERSE
    header = _header(route, scope, _TYPES[route.type], _ONLINK if route.onlink else 0)
    body = header + _attributes(route, index)
    return Message(RTM_NEWROUTE, flags, body, About("set", route))


def delete_route(route: Route, index: int) -> Message:
    """Delete *route* if it carries our protocol; ObjectNotFound when it is gone."""
    header = _header(route, _SCOPE_NOWHERE, _TYPES[route.type], 0)
    return Message(RTM_DELROUTE, 0, header + _attributes(route, index), About("delete", route))


def dump_routes(
    rtnl: Rtnl, name_of: Callable[[int], str], *, protocol: int | None = PROTOCOL, table: int = 0
) -> list[Route]:
    """The routes of *protocol* (filtered in the kernel), of both families; *table* 0: of all tables.

    Only those without a metric, because we never write one. With *protocol* None all routes of anybody; one of
    several next hops then names the device of the first. *name_of* maps a device index to a name.
    """
    found: list[Route] = []
    for family in Family:
        header = _RTMSG.pack(AF[family], 0, 0, 0, 0, protocol or 0, 0, 0, 0)
        body = header + (u32(_TABLE, table) if table else b"")
        try:
            answers = rtnl.dump(RTM_GETROUTE, body, f"list IPv{family} routes")
        except ObjectNotFound:  # a table comes into being with its first route
            continue
        for answer in answers:
            found.extend(_parse(answer, name_of, protocol))
    return found


def _parse(body: bytes, name_of: Callable[[int], str], protocol: int | None) -> Iterator[Route]:
    af, length, _, _, _, owner, _, kind, flags = _RTMSG.unpack_from(body)
    if protocol not in (None, owner) or kind not in _TYPE_OF or flags & _CLONED:
        return
    family = FAMILY_OF_AF[af]
    found = parse(body, _RTMSG.size)
    if protocol is not None and read_u32(found.get(_PRIORITY, b"")) != _METRIC[family]:
        return
    if protocol is None and _MULTIPATH in found:
        found = found | {_OIF: found[_MULTIPATH][4:8]}
    route_type = _TYPE_OF[kind]
    unicast = route_type is RouteType.UNICAST
    yield Route(
        table=read_u32(found[_TABLE]),
        destination=_network(family, found.get(_DST, b""), length),
        device=name_of(read_u32(found[_OIF])) if unicast and _OIF in found else "",
        gateway=read_address(found[_GATEWAY]) if _GATEWAY in found else None,
        source=read_address(found[_PREFSRC]) if _PREFSRC in found else None,
        type=route_type,
        onlink=bool(flags & _ONLINK),
    )


def _network(family: Family, data: bytes, length: int) -> IPNetwork:
    if not data:
        return DEFAULT_ROUTE[family]
    return IPv4Network((data, length)) if family is Family.V4 else IPv6Network((data, length))


def _is_direct(route: Route) -> bool:
    return route.type is RouteType.UNICAST and route.gateway is None


def _header(route: Route, scope: int, kind: int, flags: int) -> bytes:
    table = route.table if route.table < 256 else 0
    length = route.destination.prefixlen
    return _RTMSG.pack(AF[route.family], length, 0, 0, table, PROTOCOL, scope, kind, flags)


def _attributes(route: Route, index: int) -> bytes:
    parts = [u32(_TABLE, route.table)]
    if route.destination.prefixlen:
        parts.append(attribute(_DST, route.destination.network_address.packed))
    if index:
        parts.append(u32(_OIF, index))
    if route.gateway is not None:
        parts.append(attribute(_GATEWAY, route.gateway.packed))
    if route.source is not None:
        parts.append(attribute(_PREFSRC, route.source.packed))
    return b"".join(parts)
