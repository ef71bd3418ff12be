"""Namespaces that live as long as a test.

Names carry the process id, so that what a crashed run has left can be told from what a parallel run uses.
"""

import itertools
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from hybridnet.kernel.namespace import RUN_NETNS, create_named, delete_named
from tests.kernel.netns import Net

PREFIX = "hnkern-"


@pytest.fixture(scope="session", autouse=True)
def _without_leftovers() -> None:
    """Remove the namespaces of runs that are dead."""
    if os.geteuid() != 0:
        pytest.skip("needs root for network namespaces")
    for path in RUN_NETNS.glob(f"{PREFIX}*"):
        owner = path.name.removeprefix(PREFIX).partition("-")[0]
        if not Path(f"/proc/{owner}").exists():
            delete_named(path.name)


@pytest.fixture
def make_net() -> Iterator[Callable[[], Net]]:
    """Makes namespaces that live as long as the test."""
    made: list[Net] = []
    counter = itertools.count()

    def make() -> Net:
        name = f"{PREFIX}{os.getpid()}-{next(counter)}"
        delete_named(name)
        made.append(Net(name, create_named(name)))
        return made[-1]

    yield make
    for net in made:
        net.close()
        delete_named(net.name)


@pytest.fixture
def net(make_net: Callable[[], Net]) -> Net:
    return make_net()
