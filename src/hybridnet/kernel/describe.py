"""Kernel objects in words, as an operator would type them: for error messages and logs."""

from typing import NamedTuple

from hybridnet.plan.state import (
    FdbEntry,
    KernelObject,
    LinkAddress,
    ProxyNeighbour,
    Route,
    RouteType,
    Rule,
    RuleAction,
    Sysctl,
    VxlanLink,
)


class About(NamedTuple):
    """An action on an object, put into words only when somebody asks."""

    verb: str
    object: KernelObject

    def __str__(self) -> str:
        return f"{self.verb} {describe(self.object)}"


def describe(item: KernelObject) -> str:
    """*item* in the words of ``ip`` and ``bridge``."""
    match item:
        case Route():
            words = _route(item)
        case Rule():
            words = _rule(item)
        case ProxyNeighbour():
            words = f"neighbour proxy {item.address} dev {item.device}"
        case FdbEntry():
            words = f"fdb {item.mac} dev {item.device} dst {item.destination}"
        case VxlanLink():
            words = f"link {item.name} type vxlan id {item.vni} dev {item.parent} local {item.local}"
        case LinkAddress():
            words = f"address {item.address} dev {item.device}"
        case Sysctl():
            words = f"sysctl {item.path} = {item.value}"
    return words


def _route(route: Route) -> str:
    parts = ["route"]
    if route.type is not RouteType.UNICAST:
        parts.append(route.type.value)
    parts.append(str(route.destination))
    if route.gateway is not None:
        parts.append(f"via {route.gateway}")
    if route.device:
        parts.append(f"dev {route.device}")
    if route.source is not None:
        parts.append(f"src {route.source}")
    if route.onlink:
        parts.append("onlink")
    parts.append(f"table {route.table}")
    return " ".join(parts)


def _rule(rule: Rule) -> str:
    mark = f" fwmark {rule.mark:#x}/{rule.mask:#x}" if rule.mask else ""
    target = "" if rule.action is RuleAction.NOP else f" {rule.target}"
    return f"rule IPv{rule.family} priority {rule.priority}{mark} {rule.action}{target}"
