"""One rtnetlink socket: batches, errors, dumps."""

import socket
import struct
from collections.abc import Iterator
from ipaddress import IPv4Network, ip_address, ip_network

import pytest

from hybridnet.kernel.errors import AlreadyExists, DumpInterrupted, ObjectNotFound, Unreachable
from hybridnet.kernel.link import get_link
from hybridnet.kernel.netlink import NLM_F_DUMP_INTR, Rtnl
from hybridnet.kernel.route import delete_route, dump_routes, set_route
from hybridnet.plan.state import Route, RouteType
from tests.kernel.netns import Net


def blackhole(number: int) -> Route:
    return Route(300, IPv4Network(((10 << 24) + number, 32)), type=RouteType.BLACKHOLE)


def test_each_message_of_a_batch_fails_alone(net: Net) -> None:
    first, second = blackhole(1), blackhole(2)
    errors = net.rtnl.batch(
        [
            delete_route(second, 0),
            set_route(first, 0, replace=False),
            set_route(first, 0, replace=False),
            set_route(second, 0, replace=False),
        ]
    )
    assert [type(error) for error in errors] == [ObjectNotFound, type(None), AlreadyExists, type(None)]
    assert len(net.ip("route show table 300").splitlines()) == 2


def test_batches_larger_than_any_buffer_are_written_and_reported_whole(net: Net) -> None:
    routes = [blackhole(number) for number in range(5000)]
    messages = [set_route(route, 0, replace=False) for route in routes]
    assert not any(net.rtnl.batch(messages))
    assert set(dump_routes(net.rtnl, str, table=300)) == set(routes)
    errors = net.rtnl.batch(messages)
    assert all(isinstance(error, AlreadyExists) for error in errors)
    assert "10.0.19.135" in str(errors[4999])


def test_an_error_carries_the_kernel_s_own_words_and_a_next_step(net: Net) -> None:
    net.add_device("nic")
    route = Route(300, ip_network("10.0.0.0/8"), "nic", gateway=ip_address("192.0.2.1"))
    with pytest.raises(Unreachable) as caught:
        net.rtnl.request(set_route(route, net.index_of("nic"), replace=False))
    assert "set route 10.0.0.0/8 via 192.0.2.1 dev nic table 300: Network is unreachable" in str(caught.value)
    assert "Nexthop has invalid gateway" in caught.value.detail
    assert "check that the device is up" in str(caught.value)


def test_an_answer_to_an_earlier_request_is_not_taken_for_a_later_one(net: Net) -> None:
    net.rtnl._send([set_route(blackhole(1), 0, replace=False)], ack_last=True)
    assert get_link(net.rtnl, "lo").index == 1
    net.rtnl._send([set_route(blackhole(1), 0, replace=False)], ack_last=True)
    assert not any(net.rtnl.batch([set_route(blackhole(2), 0, replace=False)]))
    net.rtnl._send([set_route(blackhole(1), 0, replace=False)], ack_last=True)
    assert set(dump_routes(net.rtnl, str, table=300)) == {blackhole(1), blackhole(2)}


@pytest.fixture
def scripted(net: Net) -> Iterator[tuple[Rtnl, socket.socket]]:
    """A socket whose answers the test writes beforehand."""
    ours, kernel = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    net.rtnl._socket, real = ours, net.rtnl._socket
    net.rtnl._sequence = 0
    yield net.rtnl, kernel
    net.rtnl._socket = real
    ours.close()
    kernel.close()


def answer(sequence: int, flags: int, payload: bytes, kind: int = 24) -> bytes:
    return struct.pack("=IHHII", 16 + len(payload), kind, flags, sequence, 0) + payload


def done(sequence: int, flags: int = 0, code: int = 0) -> bytes:
    return answer(sequence, flags, struct.pack("=i", code), kind=3)


def test_a_dump_that_was_interrupted_is_repeated(scripted: tuple[Rtnl, socket.socket]) -> None:
    rtnl, kernel = scripted
    kernel.send(answer(1, NLM_F_DUMP_INTR, b"torn") + answer(1, 0, b"more"))
    kernel.send(done(1))
    kernel.send(answer(2, 0, b"half") + done(2, NLM_F_DUMP_INTR))
    kernel.send(answer(3, 0, b"good") + done(3))
    assert rtnl.dump(26, b"") == [b"good"]


def test_a_dump_that_never_settles_is_an_error_with_advice(scripted: tuple[Rtnl, socket.socket]) -> None:
    rtnl, kernel = scripted
    for sequence in range(1, 9):
        kernel.send(done(sequence, NLM_F_DUMP_INTR))
    with pytest.raises(DumpInterrupted, match="changes constantly"):
        rtnl.dump(26, b"", "list IPv4 routes")


def test_a_dump_that_fails_at_its_end_is_an_error(scripted: tuple[Rtnl, socket.socket]) -> None:
    rtnl, kernel = scripted
    kernel.send(answer(1, 0, b"some") + done(1, code=-2))
    with pytest.raises(ObjectNotFound, match="list IPv4 routes"):
        rtnl.dump(26, b"", "list IPv4 routes")
