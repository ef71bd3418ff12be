"""Namespaces are entered by one thread for one call, and named as ``ip netns`` names them."""

import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from hybridnet.kernel.errors import AlreadyExists, NamespaceNotFound
from hybridnet.kernel.link import links
from hybridnet.kernel.namespace import RUN_NETNS, Namespace, create_named, delete_named
from hybridnet.kernel.netlink import Rtnl
from tests.kernel.netns import Net


def here() -> str:
    return str(Path("/proc/thread-self/ns/net").readlink())


def test_a_call_runs_inside_and_the_thread_comes_back(net: Net) -> None:
    before = here()
    assert net.namespace.run(here) == f"net:[{net.namespace.inode}]"
    assert here() == before


def test_the_thread_comes_back_from_a_failing_call(net: Net) -> None:
    before = here()
    with pytest.raises(ZeroDivisionError):
        net.namespace.run(lambda: 1 // 0)
    assert here() == before


def test_other_threads_stay_where_they_are(net: Net) -> None:
    asked, answered = threading.Event(), threading.Event()
    seen: list[str] = []

    def other() -> None:
        asked.wait()
        seen.append(here())
        answered.set()

    thread = threading.Thread(target=other)
    thread.start()

    def inside() -> None:
        asked.set()
        answered.wait()

    net.namespace.run(inside)
    thread.join()
    assert seen == [here()]


def test_creating_a_namespace_leaves_the_caller_where_it_is(make_net: Callable[[], Net]) -> None:
    before = here()
    assert make_net().namespace.inode != make_net().namespace.inode
    assert here() == before


def test_a_socket_stays_in_its_namespace_after_the_namespace_was_closed(net: Net) -> None:
    with Namespace.open(RUN_NETNS / net.name) as opened:
        rtnl = Rtnl(opened)
    net.add_device("mark")
    assert "mark" in {link.name for link in links(rtnl)}
    rtnl.close()


def test_the_current_namespace_is_the_thread_s(net: Net) -> None:
    def inside() -> int:
        with Namespace.current() as current:
            return current.inode

    assert net.namespace.run(inside) == net.namespace.inode


def test_a_name_cannot_be_taken_twice(net: Net) -> None:
    with pytest.raises(AlreadyExists, match=net.name):
        create_named(net.name)
    assert net.name in net.shell("ip", "netns", "list")


def test_deleting_a_namespace_that_is_gone_is_no_error(net: Net) -> None:
    delete_named(net.name)
    delete_named(net.name)
    assert not (RUN_NETNS / net.name).exists()


@pytest.mark.parametrize("path", ["/run/netns/hnkern-absent", "/proc/1/absent/net", "/etc/hostname"])
def test_what_is_no_namespace_is_not_found(path: str) -> None:
    with pytest.raises(NamespaceNotFound, match=path):
        Namespace.open(path)


def test_a_namespace_of_another_kind_is_not_found() -> None:
    with pytest.raises(NamespaceNotFound):
        Namespace.open("/proc/self/ns/uts")


def test_the_file_that_a_namespace_leaves_when_its_mount_is_lost_is_not_found(tmp_path: Path) -> None:
    (tmp_path / "left").touch()
    with pytest.raises(NamespaceNotFound):
        Namespace.open(tmp_path / "left")
