"""Records survive the process, and only whole ones are believed."""

import os
from ipaddress import ip_interface
from pathlib import Path

import pytest

from hybridnet.agent.sandbox import SandboxStore
from hybridnet.plan.endpoint import Endpoint, PodAddress


def endpoint(container: str) -> Endpoint:
    addresses = (PodAddress(ip_interface("10.0.0.5/24"), "a"), PodAddress(ip_interface("fd00::5/64"), "b"))
    return Endpoint(container, "eth0", "hybr0", "ns", "p", "u", "02:12:34:00:00:01", 1450, "/n", addresses)


def test_another_process_reads_what_was_saved(tmp_path: Path) -> None:
    store = SandboxStore(tmp_path)
    store.save(endpoint("one"))
    store.save(endpoint("two"))
    store.remove("one", "eth0")
    again = SandboxStore(tmp_path)
    assert again.items() == [endpoint("two")]
    assert again.get("one", "eth0") is None
    assert again.get("two", "eth0") == endpoint("two")


def test_a_damaged_record_is_left_alone_and_stops_nothing(tmp_path: Path) -> None:
    SandboxStore(tmp_path).save(endpoint("good"))
    (tmp_path / "bad.json").write_text('{"container": 1')
    (tmp_path / "half.tmp").write_text("{")
    assert [e.container for e in SandboxStore(tmp_path).items()] == ["good"]
    assert (tmp_path / "bad.json").exists()


def test_a_container_id_cannot_name_a_file_elsewhere(tmp_path: Path) -> None:
    store = SandboxStore(tmp_path / "records")
    store.save(endpoint("../../escape"))
    assert [p.parent.name for p in tmp_path.rglob("*.json")] == ["records"]


@pytest.mark.spec("T06")
def test_another_process_reads_records_in_the_order_in_which_they_were_written(tmp_path: Path) -> None:
    store = SandboxStore(tmp_path)
    for second, name in enumerate(("zulu", "alpha", "mike"), 1):
        store.save(endpoint(name))
        os.utime(tmp_path / f"{name}-eth0.json", (second, second))
    assert [e.container for e in store.items()] == ["zulu", "alpha", "mike"]
    assert [e.container for e in SandboxStore(tmp_path).items()] == ["zulu", "alpha", "mike"]


def test_a_record_written_again_is_the_newest(tmp_path: Path) -> None:
    store = SandboxStore(tmp_path)
    for name in ("one", "two", "one"):
        store.save(endpoint(name))
    assert [e.container for e in store.items()] == ["two", "one"]


def test_a_record_that_could_not_be_written_is_not_known_and_leaves_no_file(tmp_path: Path) -> None:
    store = SandboxStore(tmp_path)
    (tmp_path / "blocked-eth0.json").mkdir()
    with pytest.raises(OSError):
        store.save(endpoint("blocked"))
    assert store.items() == []
    assert [p.name for p in tmp_path.iterdir()] == ["blocked-eth0.json"]
