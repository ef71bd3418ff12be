"""Generated MAC addresses."""

import pytest

from hybridnet.ipam.mac import MacRegistry


@pytest.mark.spec("M8", "M10")
def test_10_000_pods_get_distinct_macs_with_our_prefix() -> None:
    registry = MacRegistry()
    macs = {registry.assign(f"pod-{n}") for n in range(10_000)}
    assert len(macs) == 10_000
    assert all(mac.startswith("02:12:34:") and len(mac) == 17 and mac == mac.lower() for mac in macs)


def test_a_pod_keeps_its_mac_until_it_is_forgotten() -> None:
    registry = MacRegistry()
    registry.learn("a", "02:12:34:00:00:01")
    assert registry.assign("a") == "02:12:34:00:00:01"
    registry.learn("b", "02:12:34:00:00:01")
    registry.forget("a")
    assert "02:12:34:00:00:01" in registry, "another pod still has it"
    registry.forget("b")
    registry.forget("b")
    assert "02:12:34:00:00:01" not in registry
