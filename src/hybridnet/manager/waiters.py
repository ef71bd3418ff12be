"""Pods without an address, and what wakes them.

A pod waits in the line of what it lacks: addresses of one family in one network or one named subnet, or (for
any other reason) a change of objects. A freed address wakes the first of its line; when that one is served,
or needs it no more, the next is woken, until one finds nothing again. So a thousand waiting pods cost one
attempt per freed address, and nobody sleeps while there is something to have (the original slept up to 17
minutes).
"""

from collections.abc import Callable, Iterable

from msgspec import Struct

from hybridnet.model.address import Family

PodKey = tuple[str, str]
Line = tuple[str, Family, str | None]
"""Network, family, and the named subnet if any."""


class Waiting(Struct):
    """One waiting pod. *message* is what its last event said."""

    line: Line | None
    node: str
    message: str
    woken: bool = False


class Waiters:
    """Lines of pods, first come first served. *wake* is called with the key of a pod to try again."""

    def __init__(self, wake: Callable[[PodKey], None]) -> None:
        self._wake = wake
        self._pods: dict[PodKey, Waiting] = {}
        self._lines: dict[Line, dict[PodKey, None]] = {}

    def __len__(self) -> int:
        return len(self._pods)

    def __contains__(self, key: PodKey) -> bool:
        return key in self._pods

    def wait(self, key: PodKey, line: Line | None, node: str, message: str) -> bool:
        """Let a pod wait; it keeps its place in a line that it is in. Returns whether *message* is news."""
        waiting = self._pods.get(key)
        if waiting is not None and waiting.line == line:
            news = waiting.message != message
            waiting.woken, waiting.node, waiting.message = False, node, message
            return news
        self.leave(key)
        self._pods[key] = Waiting(line, node, message)
        if line is not None:
            self._lines.setdefault(line, {})[key] = None
        return waiting is None or waiting.message != message

    def leave(self, key: PodKey) -> None:
        """The pod needs nothing any more (or something else); whoever is next may try."""
        waiting = self._pods.pop(key, None)
        if waiting is None or waiting.line is None:
            return
        line = self._lines[waiting.line]
        del line[key]
        if not line:
            del self._lines[waiting.line]
        elif waiting.woken:
            self.wake_next(waiting.line)

    def wake_next(self, line: Line) -> None:
        """Something may be had for this line: wake the first that is not awake yet."""
        for key in self._lines.get(line, ()):
            waiting = self._pods[key]
            if not waiting.woken:
                waiting.woken = True
                self._wake(key)
                return

    def address_freed(self, network: str, family: Family, subnet: str, *, private: bool) -> None:
        """An address of *subnet* became free: it helps one that named the subnet and, unless the subnet is
        private, one that takes any."""
        self.wake_next((network, family, subnet))
        if not private:
            self.wake_next((network, family, None))

    def wake_heads(self) -> None:
        """Wake the first of every line and all that wait for objects to change: a safety net."""
        for line in list(self._lines):
            self.wake_next(line)
        self._wake_all(key for key, waiting in self._pods.items() if waiting.line is None)

    def wake_everyone(self) -> None:
        """Networks or subnets changed: anyone's situation may be different now."""
        self._wake_all(self._pods)

    def wake_node(self, node: str) -> None:
        """The labels of a node changed."""
        self._wake_all(key for key, waiting in self._pods.items() if waiting.node == node)

    def wake_namespace(self, namespace: str) -> None:
        """The annotations or labels of a namespace changed."""
        self._wake_all(key for key in self._pods if key[0] == namespace)

    def _wake_all(self, keys: Iterable[PodKey]) -> None:
        for key in list(keys):
            self._wake(key)
