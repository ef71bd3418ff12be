"""How the lab tells what it is waiting for. What that looks like is the command line's business."""

import contextlib
from collections.abc import Callable, Iterator
from typing import Protocol

Tell = Callable[[str], None]
"""Takes a word on how a step is going on."""


class Progress(Protocol):
    """Told about steps, from several threads at once."""

    def step(self, name: str) -> contextlib.AbstractContextManager[Tell]:
        """A step called *name* lasts as long as the context; an exception means that it failed."""


class Silent:
    """Says nothing: for tests."""

    @contextlib.contextmanager
    def step(self, name: str) -> Iterator[Tell]:  # noqa: ARG002  the signature of Progress
        """Nothing."""
        yield lambda _: None
