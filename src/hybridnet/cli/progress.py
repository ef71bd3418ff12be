"""Show the steps of the lab: a live table with clocks on a terminal, a line per finished step elsewhere."""

import contextlib
import threading
import time
from collections.abc import Iterator
from typing import Self

from rich.console import Console
from rich.live import Live
from rich.spinner import Spinner
from rich.table import Table
from rich.text import Text

from hybridnet.lab.progress import Tell

QUIET_SECONDS = 20.0
"""Without a terminal a long step is heard of this often: CI ends what is silent for long."""


class _Step:
    def __init__(self, name: str) -> None:
        self.name = name
        self.detail = ""
        self.started = self.told = time.monotonic()
        self.seconds: float | None = None
        self.failed = False


class StepDisplay:
    """A context manager that is a Progress of the lab; writes to stderr, so stdout stays for results."""

    def __init__(self, *, quiet: bool = False) -> None:
        """*quiet*: show nothing, for output that machines read."""
        self._console = Console(stderr=True, quiet=quiet)
        self._lock = threading.Lock()
        self._steps: list[_Step] = []
        self._started = time.monotonic()
        self._live = Live(self, console=self._console, refresh_per_second=8, transient=False)

    @property
    def seconds(self) -> float:
        """Since the display was made."""
        return time.monotonic() - self._started

    def __enter__(self) -> Self:
        if self._console.is_terminal:
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._console.is_terminal:
            self._live.stop()

    @contextlib.contextmanager
    def step(self, name: str) -> Iterator[Tell]:
        """A step called *name*, shown until the context ends."""
        step = _Step(name)
        with self._lock:
            self._steps.append(step)
        try:
            yield lambda detail: self._tell(step, detail)
        except BaseException:
            step.failed = True
            raise
        finally:
            step.seconds = time.monotonic() - step.started
            if not self._console.is_terminal:
                self._console.print(_line(step), highlight=False)

    def __rich__(self) -> Table:
        """The table as it is now."""
        table = Table.grid(padding=(0, 1))
        with self._lock:
            steps = list(self._steps)
        for step in steps:
            running = step.seconds is None
            mark: Spinner | Text = Spinner("dots") if running else _mark(step)
            detail = step.detail if running else ""
            table.add_row(mark, Text(f"{_elapsed(step):5.1f} s"), Text(step.name), Text(detail, style="dim"))
        return table

    def _tell(self, step: _Step, detail: str) -> None:
        step.detail = detail
        if not self._console.is_terminal and time.monotonic() - step.told > QUIET_SECONDS:
            step.told = time.monotonic()
            self._console.print(f"...    {_elapsed(step):6.1f} s  {step.name}: {detail}", highlight=False)


def _elapsed(step: _Step) -> float:
    return time.monotonic() - step.started if step.seconds is None else step.seconds


def _mark(step: _Step) -> Text:
    return Text("failed" if step.failed else "ok", style="red" if step.failed else "green")


def _line(step: _Step) -> str:
    word = "failed" if step.failed else "ok"
    return f"{word:6} {step.seconds or 0.0:6.1f} s  {step.name}"
