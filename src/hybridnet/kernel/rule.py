"""Policy rules: read those of ours, add, delete.

The kernel has no replacement of a rule: to change one, add the new and delete the old (the applier does it in this
order, so no packet meets a gap). A deletion names every field, because the kernel deletes the first rule that does
not contradict the request.
"""

import struct

from hybridnet.kernel.describe import About
from hybridnet.kernel.netlink import (
    AF,
    FAMILY_OF_AF,
    NLM_F_CREATE,
    NLM_F_EXCL,
    Message,
    Rtnl,
    parse,
    read_u32,
    u8,
    u32,
)
from hybridnet.model.address import Family
from hybridnet.plan.state import PROTOCOL, Rule, RuleAction

RTM_NEWRULE, RTM_DELRULE, RTM_GETRULE = 32, 33, 34

_RULE = struct.Struct("=BBBBBBBBI")
_GOTO, _PRIORITY, _MARK, _TABLE, _MASK, _PROTOCOL = 4, 6, 10, 15, 16, 21
_ACTIONS = {RuleAction.LOOKUP: 1, RuleAction.GOTO: 2, RuleAction.NOP: 3}
_ACTION_OF = {number: action for action, number in _ACTIONS.items()}


def add_rule(rule: Rule) -> Message:
    """Create *rule*; AlreadyExists when an equal one (of whatever protocol) is there."""
    return Message(RTM_NEWRULE, NLM_F_CREATE | NLM_F_EXCL, _body(rule), About("add", rule))


def delete_rule(rule: Rule) -> Message:
    """Delete *rule* of ours; ObjectNotFound when it is gone."""
    return Message(RTM_DELRULE, 0, _body(rule), About("delete", rule))


def dump_rules(rtnl: Rtnl, *, protocol: int = PROTOCOL) -> list[Rule]:
    """The rules of *protocol*, of both families, by priority. (The kernel cannot filter them.)"""
    found: list[Rule] = []
    for family in Family:
        body = _RULE.pack(AF[family], 0, 0, 0, 0, 0, 0, 0, 0)
        for answer in rtnl.dump(RTM_GETRULE, body, f"list IPv{family} rules"):
            rule = _parse(answer, protocol)
            if rule is not None:
                found.append(rule)
    return found


def _parse(body: bytes, protocol: int) -> Rule | None:
    af, _, _, _, table, _, _, action, _ = _RULE.unpack_from(body)
    found = parse(body, _RULE.size)
    if found.get(_PROTOCOL, b"\0")[0] != protocol or action not in _ACTION_OF:
        return None
    kind = _ACTION_OF[action]
    target = 0
    if kind is RuleAction.LOOKUP:
        target = read_u32(found[_TABLE]) if _TABLE in found else table
    elif kind is RuleAction.GOTO:
        target = read_u32(found.get(_GOTO, b""))
    return Rule(
        family=FAMILY_OF_AF[af],
        priority=read_u32(found.get(_PRIORITY, b"")),
        action=kind,
        target=target,
        mark=read_u32(found.get(_MARK, b"")),
        mask=read_u32(found.get(_MASK, b"")),
    )


def _body(rule: Rule) -> bytes:
    lookup = rule.action is RuleAction.LOOKUP
    table = rule.target if lookup and rule.target < 256 else 0
    parts = [
        _RULE.pack(AF[rule.family], 0, 0, 0, table, 0, 0, _ACTIONS[rule.action], 0),
        u32(_PRIORITY, rule.priority),
        u8(_PROTOCOL, PROTOCOL),
    ]
    if lookup:
        parts.append(u32(_TABLE, rule.target))
    elif rule.action is RuleAction.GOTO:
        parts.append(u32(_GOTO, rule.target))
    if rule.mask:
        parts += [u32(_MARK, rule.mark), u32(_MASK, rule.mask)]
    return b"".join(parts)
