"""How the lab tells what it is waiting for. What that looks like is the command line's business."""

import contextlib
from collections.abc import Iterator
from typing import Protocol


class Progress(Protocol):
    """Told about steps, from several threads at once."""

    def step(self, name: str) -> contextlib.AbstractContextManager[None]:
        """A step called *name* lasts as long as the context; an exception means that it failed."""

    def tell(self, message: str) -> None:
        """Something worth a line."""


class Silent:
    """Says nothing: for tests."""

    @contextlib.contextmanager
    def step(self, name: str) -> Iterator[None]:  # noqa: ARG002  the signature of Progress
        """Nothing."""
        yield

    def tell(self, message: str) -> None:
        """Nothing."""
