"""Socket options that Python's socket module has no names for: linux/in.h, linux/in6.h; ip(7), ipv6(7)."""

import socket

from hybridnet.model.address import Family

_IP_MTU_DISCOVER, _IP_MTU = 10, 14
_IPV6_MTU_DISCOVER, _IPV6_MTU, _IPV6_DONTFRAG = 23, 24, 62
_PMTUDISC_DO = 2


def address_family(family: Family) -> socket.AddressFamily:
    """The constant of the socket interface."""
    return socket.AF_INET if family is Family.V4 else socket.AF_INET6


def forbid_fragments(opened: socket.socket, family: Family) -> None:
    """What does not fit into the path is not sent, by the sender or any router on the way: EMSGSIZE instead."""
    if family is Family.V4:
        opened.setsockopt(socket.IPPROTO_IP, _IP_MTU_DISCOVER, _PMTUDISC_DO)
    else:
        opened.setsockopt(socket.IPPROTO_IPV6, _IPV6_MTU_DISCOVER, _PMTUDISC_DO)
        opened.setsockopt(socket.IPPROTO_IPV6, _IPV6_DONTFRAG, 1)


def path_mtu(opened: socket.socket, family: Family) -> int:
    """What the kernel knows of the path of a connected socket, in bytes of IP packet."""
    if family is Family.V4:
        return opened.getsockopt(socket.IPPROTO_IP, _IP_MTU)
    return opened.getsockopt(socket.IPPROTO_IPV6, _IPV6_MTU)
