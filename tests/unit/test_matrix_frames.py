"""The matrix reads frames as scapy writes them, and tells which probe they belong to."""

from ipaddress import ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scapy.layers.inet import ICMP, IP, TCP, UDP
from scapy.layers.inet6 import (
    ICMPv6DestUnreach,
    ICMPv6EchoReply,
    ICMPv6EchoRequest,
    IPv6,
    IPv6ExtHdrFragment,
)
from scapy.layers.l2 import ARP, Ether
from scapy.layers.vxlan import VXLAN
from scapy.packet import Packet

from hybridnet.lab.matrix.frames import TOKEN_LENGTH, Tunnel, fill, parse_frame, read_token

ETHER = Ether(src="02:00:00:00:00:01", dst="02:00:00:00:00:02")  # else scapy asks the network for them
V4 = IP(src="10.3.0.11", dst="10.3.0.13")
V6 = IPv6(src="fd03::11", dst="fd03::13")
ENDS = {
    4: (ip_address("10.3.0.11"), ip_address("10.3.0.13")),
    6: (ip_address("fd03::11"), ip_address("fd03::13")),
}


def in_tunnel(inner: Packet, port: int = 8472, vni: int = 4) -> Packet:
    outer = ETHER / IP(src="10.1.0.11", dst="10.1.0.12") / UDP(sport=40000, dport=port)
    return outer / VXLAN(flags="Instance", vni=vni) / inner


@pytest.mark.parametrize("ip", [V4, V6], ids=["v4", "v6"])
@pytest.mark.parametrize("transport", [UDP(sport=5, dport=6), TCP(sport=5, dport=6, options=[("NOP", None)])])
@pytest.mark.parametrize("reply", [False, True])
def test_a_plain_frame_is_seen_with_its_ends_and_its_direction(
    ip: Packet, transport: Packet, reply: bool
) -> None:
    seen = parse_frame(bytes(ETHER / ip / transport / fill(77, 200, reply=reply)))
    assert seen is not None
    assert (seen.number, seen.reply, seen.tunnel, seen.fragment) == (77, reply, None, False)
    assert (seen.source, seen.destination) == ENDS[seen.source.version]


@pytest.mark.spec("T24", "T26")
@pytest.mark.parametrize("ip", [V4, V6], ids=["v4", "v6"])
def test_a_frame_in_the_tunnel_is_seen_with_both_pairs_of_ends(ip: Packet) -> None:
    seen = parse_frame(bytes(in_tunnel(ETHER / ip / UDP(dport=6) / fill(8, 100))))
    assert seen is not None
    assert seen.tunnel == Tunnel(ip_address("10.1.0.11"), ip_address("10.1.0.12"), 8472, 4)
    assert (seen.source, seen.destination) == ENDS[seen.source.version]


@pytest.mark.spec("T24")
def test_a_tunnel_on_another_port_or_with_another_id_is_seen_as_what_it_is() -> None:
    seen = parse_frame(bytes(in_tunnel(ETHER / V4 / UDP(dport=6) / fill(8, 100), port=4789, vni=0xABCDEF)))
    assert seen is not None
    assert seen.tunnel is not None
    assert (seen.tunnel.port, seen.tunnel.vni) == (4789, 0xABCDEF)


def test_the_direction_of_an_echo_is_told_by_its_type() -> None:
    body = fill(3, 100)
    for request, reply in (
        (V4 / ICMP(type=8) / body, V4 / ICMP(type=0) / body),
        (V6 / ICMPv6EchoRequest(data=body), V6 / ICMPv6EchoReply(data=body)),
    ):
        there, back = parse_frame(bytes(ETHER / request)), parse_frame(bytes(in_tunnel(ETHER / reply)))
        assert there is not None
        assert back is not None
        assert (there.reply, back.reply) == (False, True)


def test_an_error_that_quotes_a_probe_is_no_sighting_of_it() -> None:
    quoted = V4 / UDP(dport=6) / fill(3, 100)
    assert parse_frame(bytes(ETHER / IP() / ICMP(type=3, code=4) / quoted)) is None
    assert parse_frame(bytes(ETHER / IPv6() / ICMPv6DestUnreach() / V6 / UDP(dport=6) / fill(3, 100))) is None


def test_fragments_are_told_from_whole_packets() -> None:
    body = UDP(dport=6) / fill(3, 100)
    first = parse_frame(bytes(ETHER / IP(src="10.3.0.11", dst="10.3.0.13", flags="MF") / body))
    uncut = parse_frame(bytes(ETHER / IP(src="10.3.0.11", dst="10.3.0.13", flags="DF") / body))
    six = parse_frame(bytes(ETHER / V6 / IPv6ExtHdrFragment(m=1) / body))
    assert [each is not None and each.fragment for each in (first, uncut, six)] == [True, False, True]


def test_what_is_no_probe_is_passed_over() -> None:
    assert parse_frame(bytes(ETHER / V4 / UDP(dport=6) / b"of somebody else")) is None
    assert parse_frame(bytes(ETHER / ARP() / fill(1, 100))) is None
    assert parse_frame(bytes(in_tunnel(ETHER / ARP() / fill(1, 100)))) is None


@given(st.binary(max_size=120), st.integers(0, 120))
def test_no_bytes_stop_the_reader(noise: bytes, cut: int) -> None:
    whole = bytes(in_tunnel(ETHER / V6 / TCP(dport=6)))
    for frame in (noise, noise + fill(1, 60), whole[:cut] + fill(1, 60), whole[:cut] + noise + fill(1, 60)):
        seen = parse_frame(frame)
        assert seen is None or seen.number == 1


@given(st.integers(0, 2**32 - 1), st.integers(2 * TOKEN_LENGTH, 3000), st.data())
def test_every_segment_of_a_payload_tells_its_probe(number: int, size: int, data: st.DataObject) -> None:
    payload = fill(number, size, reply=True)
    assert len(payload) == size
    start = data.draw(st.integers(0, size - 2 * TOKEN_LENGTH))
    assert read_token(payload[start : start + 2 * TOKEN_LENGTH]) == (number, True)


def test_a_token_that_is_cut_off_or_spoilt_is_none() -> None:
    token = fill(5, TOKEN_LENGTH)
    assert read_token(token) == (5, False)
    assert read_token(token[:-1]) is None
    assert read_token(token.replace(b"00000005", b"nonsense")) is None
