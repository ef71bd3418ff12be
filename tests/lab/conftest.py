"""One cluster for all tests of this tier; ``HYBRIDNET_LAB=NAME`` takes one that is up, and leaves it up."""

import os
from collections.abc import Iterator

import pytest

from hybridnet.lab import cluster as labs
from hybridnet.lab import reaper
from hybridnet.lab.cluster import Cluster
from hybridnet.lab.progress import Silent

NAME = "pytest"


@pytest.fixture(scope="session", autouse=True)
def _as_root() -> None:
    if os.geteuid() != 0:
        pytest.skip("a lab needs root")


@pytest.fixture(scope="package")
def cluster() -> Iterator[Cluster]:
    """A cluster of three nodes with our network on it."""
    if existing := os.environ.get("HYBRIDNET_LAB"):
        yield labs.find(existing)
        return
    labs.down(NAME)  # what a run that was killed has left
    try:
        yield labs.up(NAME, Silent())
    finally:
        labs.down(NAME)
        assert reaper.remains(NAME) == []
