"""Addresses in canonical form, and the object names made of them.

An address is an ``ipaddress`` object everywhere inside; text appears only at the API. So two spellings of one
IPv6 address can never be two addresses (the original granted ``FD00::1`` while ``fd00::1`` was in use).
"""

from enum import IntEnum
from ipaddress import (
    IPv4Address,
    IPv4Interface,
    IPv4Network,
    IPv6Address,
    IPv6Interface,
    IPv6Network,
    ip_address,
)
from typing import TypeAlias

IPAddress: TypeAlias = IPv4Address | IPv6Address
IPNetwork: TypeAlias = IPv4Network | IPv6Network
IPInterface: TypeAlias = IPv4Interface | IPv6Interface

BLOCK_SIZE = 256


class Family(IntEnum):
    """IP version, the parameter by which one code path serves both."""

    V4 = 4
    V6 = 6

    @property
    def bits(self) -> int:
        """Length of an address in bits."""
        return 32 if self is Family.V4 else 128


def family_of(value: IPAddress | IPNetwork | IPInterface) -> Family:
    """The family of an address, network or interface."""
    return Family(value.version)


def instance_name(address: IPAddress) -> str:
    """The IPInstance name of an address: ``10-0-0-5``, ``fe80-0-0-0-0-0-0-1`` (eight groups, not padded).

    A name must begin and end with an alphanumeric character; a group of zeros is written ``0``, so every
    address has a legal name (the original could not store ``fd00:1::``).
    """
    if address.version == 4:
        return str(address).replace(".", "-")
    return "-".join(f"{int(group, 16):x}" for group in address.exploded.split(":"))


def instance_address(name: str) -> IPAddress:
    """The address that an IPInstance name stands for. ValueError when it is not one."""
    separator = ":" if name.count("-") == 7 else "."
    return ip_address(name.replace("-", separator))


def block_of(address: IPAddress) -> tuple[IPNetwork, int]:
    """The 256-address block that holds *address*, and the offset in it."""
    base = int(address) & ~(BLOCK_SIZE - 1)
    network = IPv4Network((base, 24)) if address.version == 4 else IPv6Network((base, 120))
    return network, int(address) - base


def block_name(block: IPNetwork) -> str:
    """The IPBlock name of a block: ``10-0-3-0-24``."""
    return f"{instance_name(block.network_address)}-{block.prefixlen}"
