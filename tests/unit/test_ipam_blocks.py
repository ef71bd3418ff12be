"""The sparse address set against a plain set, small and huge."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hybridnet.ipam.blocks import AddressSet

DENSE = st.integers(0, 600)
SPARSE = st.integers(0, 2**128 - 1)


@given(
    st.lists(st.tuples(st.booleans(), DENSE | SPARSE), max_size=200), st.lists(DENSE | SPARSE, max_size=20)
)
def test_it_behaves_like_a_set(steps: list[tuple[bool, int]], probes: list[int]) -> None:
    ours, model = AddressSet(), set()
    for add, value in steps:
        assert (ours.add if add else ours.discard)(value) is ((value in model) is not add)
        (model.add if add else model.discard)(value)
    assert list(ours) == sorted(model)
    assert len(ours) == len(model)
    for probe in probes:
        assert (probe in ours) is (probe in model)
        expected = probe
        while expected in model:
            expected += 1
        assert ours.next_absent(probe) == expected


@pytest.mark.parametrize("base", [0, 10 << 24, 0xFD00 << 112])
def test_the_search_climbs_over_full_blocks_and_comes_back(base: int) -> None:
    ours = AddressSet()
    for value in range(base, base + 70_000):
        ours.add(value)
    assert ours.next_absent(base) == base + 70_000
    ours.discard(base + 65_535)
    assert ours.next_absent(base) == base + 65_535
    ours.add(base + 65_535)
    ours.discard(base + 7)
    assert ours.next_absent(base) == base + 7
    assert ours.next_absent(base + 8) == base + 70_000
