"""The API server's rules and the manager's own judgement agree: neither accepts a range that the other refuses.

Ranges are made from values at the edges, where arithmetic goes wrong.
"""

from collections.abc import Iterator
from ipaddress import ip_network
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hybridnet.ipam.errors import RangeError
from hybridnet.ipam.range import parse_range
from hybridnet.lab.controlplane import ControlPlane
from hybridnet.model.network import AddressRange
from hybridnet.model.resource import SUBNETS
from tests.api.raw import Manifest, RawApi

CIDRS = (
    "10.7.3.0/24",
    "10.7.3.64/28",
    "10.7.0.0/17",
    "0.0.0.0/30",
    "fd00:7::/64",
    "fd00:7::ff00/120",
    "::/126",
)
BROKEN = ("10.7.3", "10.7.3.1/24", "10.7.3.01", "fd00::g", "fd00:::1", "10.7.3.256", "here")
FIELDS = ("version", "cidr", "start", "end", "gateway", "reservedIPs", "excludeIPs")
MISTAKES = ("10.7.3.1/24", "10.7.3.0", "10.7.3.0/33", "fd00:7::1/64", "10.7.3.4/31", "fd00:7::/127", "net")


@st.composite
def ranges(draw: st.DrawFn) -> AddressRange:
    """Addresses at the edges of the CIDR, and in half of the ranges one field beside it."""
    text = draw(st.sampled_from(CIDRS))
    cidr = ip_network(text)
    size, base = cidr.num_addresses, cidr[0]
    inside = [str(base + offset) for offset in (0, 1, size // 2 - 1, size // 2, size - 2, size - 1)]
    outside = [str(base + size), *([str(base - 1)] if int(base) else [])]
    mistaken = draw(st.sampled_from([*[""] * len(FIELDS), *FIELDS]))

    def address(field: str) -> st.SearchStrategy[str]:
        return st.sampled_from([*outside, *BROKEN] if field == mistaken else inside)

    def optional(field: str) -> str:
        return draw(st.one_of(st.just(""), address(field)))

    def several(field: str) -> tuple[str, ...]:
        return tuple(draw(st.lists(address(field), max_size=2)))

    other = "6" if cidr.version == 4 else "4"
    return AddressRange(
        version=other if mistaken == "version" else str(cidr.version),
        cidr=draw(st.sampled_from(MISTAKES)) if mistaken == "cidr" else text,
        start=optional("start"),
        end=optional("end"),
        gateway=optional("gateway"),
        reserved_ips=several("reservedIPs"),
        exclude_ips=several("excludeIPs"),
    )


@pytest.fixture(scope="module")
def api(api_server: ControlPlane) -> Iterator[RawApi]:
    raw = RawApi(api_server.kubeconfig)
    yield raw
    raw.close()


def manifest_of(wanted: AddressRange) -> Manifest:
    fields: dict[str, Any] = {
        "version": wanted.version,
        "cidr": wanted.cidr,
        "start": wanted.start,
        "end": wanted.end,
        "gateway": wanted.gateway,
        "reservedIPs": wanted.reserved_ips,
        "excludeIPs": wanted.exclude_ips,
    }
    return {
        "apiVersion": SUBNETS.api_version,
        "kind": "Subnet",
        "metadata": {"name": "crd-agreement"},
        "spec": {"network": "any", "range": fields},
    }


def judge(wanted: AddressRange) -> str:
    """The manager's reason; exclusions that leave nothing are beyond what a schema counts."""
    try:
        parse_range(wanted)
    except RangeError as error:
        return "" if "no usable address is left" in str(error) else str(error)
    return ""


@settings(
    max_examples=400,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(wanted=ranges())
def test_the_api_server_refuses_what_the_manager_could_not_use(api: RawApi, wanted: AddressRange) -> None:
    ours, theirs = judge(wanted), api.try_create(SUBNETS, manifest_of(wanted))
    assert bool(ours) == bool(theirs), f"manager: {ours or 'fine'}; API server: {theirs or 'fine'}"
