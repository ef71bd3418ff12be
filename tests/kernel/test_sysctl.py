"""Sysctls of the namespace that is meant, and of no other."""

import pytest

from hybridnet.kernel import sysctl
from hybridnet.kernel.errors import InvalidRequest, ObjectNotFound
from hybridnet.plan.state import Sysctl
from tests.kernel.netns import Net

KNOB = "net/ipv4/conf/lo/rp_filter"


def test_a_value_is_written_in_the_namespace_alone(net: Net) -> None:
    outside = sysctl.read(KNOB)
    other = "1" if outside != "1" else "2"
    sysctl.write(KNOB, other, net.namespace)
    assert net.shell("cat", f"/proc/sys/{KNOB}").strip() == other
    assert sysctl.read(KNOB, net.namespace) == other
    assert sysctl.read(KNOB) == outside


def test_only_a_difference_is_written(net: Net) -> None:
    wanted = Sysctl(KNOB, "2")
    assert sysctl.ensure(wanted, net.namespace)
    assert not sysctl.ensure(wanted, net.namespace)
    net.shell("sysctl", "-qw", "net.ipv4.conf.lo.rp_filter=0")
    assert sysctl.ensure(wanted, net.namespace)


def test_numbers_are_the_same_whatever_separates_them(net: Net) -> None:
    wanted = Sysctl("net/ipv4/ip_local_port_range", "20000 30000")
    assert sysctl.ensure(wanted, net.namespace)
    assert sysctl.read(wanted.path, net.namespace) == "20000\t30000"
    assert not sysctl.ensure(wanted, net.namespace)


def test_an_absent_knob_is_an_error_unless_it_is_optional(net: Net) -> None:
    path = "net/ipv4/conf/nowhere/rp_filter"
    with pytest.raises(ObjectNotFound, match=path):
        sysctl.ensure(Sysctl(path, "0"), net.namespace)
    assert not sysctl.ensure(Sysctl(path, "0", optional=True), net.namespace)
    assert sysctl.current(Sysctl(path, "0"), net.namespace) is None


def test_a_value_that_the_kernel_refuses_is_named(net: Net) -> None:
    with pytest.raises(InvalidRequest, match=f"{KNOB} to many"):
        sysctl.ensure(Sysctl(KNOB, "many"), net.namespace)
