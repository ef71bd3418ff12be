"""Calls of CNI executables as a container runtime makes them, a given number in flight, each timed to its end.

``posix_spawn`` with the configuration as stdin and a file as stdout, then one poll over the pidfds of all calls:
no thread and no pipe of ours stands between a call and its time, and both sides of a comparison pay the same.
"""

import os
import select
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

import msgspec
from msgspec import Struct

VERSION = "1.0.0"
SHOWN = 400


class CallFailed(Exception):
    """A plugin ended with an error: the bench would compare nothing."""


class Pod(Struct, frozen=True):
    """What a runtime knows of a pod: its names, its namespace, its sandbox."""

    name: str
    uid: str
    container: str
    netns: Path


class Plugin(Struct, frozen=True):
    """An installed plugin and its configuration in the conflist."""

    executable: Path
    network: str
    configuration: Mapping[str, object]

    def stdin(self, result: bytes = b"") -> bytes:
        """The configuration of a call; *result*: what ADD answered, for DEL (CNI 1.0, section 4)."""
        body = {"cniVersion": VERSION, "name": self.network, **self.configuration}
        if result:
            body["prevResult"] = msgspec.json.decode(result)
        return msgspec.json.encode(body)


class Calls:
    """Makes calls; keeps their inputs and answers in *folder*."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def add(self, plugin: Plugin, pods: Sequence[Pod], parallel: int) -> list[float]:
        """ADD for all *pods*; milliseconds of each call. CallFailed."""
        return self._all("ADD", plugin, pods, parallel)

    def delete(self, plugin: Plugin, pods: Sequence[Pod], parallel: int) -> list[float]:
        """DEL for all *pods*, with the result of their ADD; milliseconds of each call. CallFailed."""
        return self._all("DEL", plugin, pods, parallel)

    def _all(self, command: str, plugin: Plugin, pods: Sequence[Pod], parallel: int) -> list[float]:
        for pod in pods:
            answer = self._file(pod, "ADD").read_bytes() if command == "DEL" else b""
            self._file(pod, f"{command}.in").write_bytes(plugin.stdin(answer))
        return list(self._run(command, plugin, iter(pods), parallel))

    def _run(self, command: str, plugin: Plugin, pods: Iterator[Pod], parallel: int) -> Iterable[float]:
        poll = select.poll()
        running: dict[int, tuple[int, Pod, float]] = {}
        waiting = next(pods, None)
        while running or waiting is not None:
            while waiting is not None and len(running) < parallel:
                begin = time.perf_counter()
                pid = self._spawn(command, plugin, waiting)
                descriptor = os.pidfd_open(pid)
                poll.register(descriptor, select.POLLIN)
                running[descriptor] = pid, waiting, begin
                waiting = next(pods, None)
            for descriptor, _ in poll.poll():
                end = time.perf_counter()
                pid, pod, begin = running.pop(descriptor)
                poll.unregister(descriptor)
                os.close(descriptor)
                self._check(command, plugin, pod, os.waitpid(pid, 0)[1])
                yield 1000 * (end - begin)

    def _spawn(self, command: str, plugin: Plugin, pod: Pod) -> int:
        executable = str(plugin.executable)
        arguments = {"IgnoreUnknown": "1", "K8S_POD_NAMESPACE": "default", "K8S_POD_NAME": pod.name}
        arguments |= {"K8S_POD_INFRA_CONTAINER_ID": pod.container, "K8S_POD_UID": pod.uid}
        environment = {
            "PATH": os.environ["PATH"],
            "CNI_COMMAND": command,
            "CNI_CONTAINERID": pod.container,
            "CNI_NETNS": str(pod.netns),
            "CNI_IFNAME": "eth0",
            "CNI_PATH": str(plugin.executable.parent),
            "CNI_ARGS": ";".join(f"{key}={value}" for key, value in arguments.items()),
        }
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC
        actions = [
            (os.POSIX_SPAWN_OPEN, 0, str(self._file(pod, f"{command}.in")), os.O_RDONLY, 0),
            (os.POSIX_SPAWN_OPEN, 1, str(self._file(pod, command)), flags, 0o600),
            (os.POSIX_SPAWN_OPEN, 2, str(self._file(pod, f"{command}.err")), flags, 0o600),
        ]
        return os.posix_spawn(executable, [executable], environment, file_actions=actions)

    def _check(self, command: str, plugin: Plugin, pod: Pod, status: int) -> None:
        if os.waitstatus_to_exitcode(status) != 0:
            told = self._file(pod, command).read_text() + self._file(pod, f"{command}.err").read_text()
            raise CallFailed(f"{plugin.executable.name} {command} of {pod.name} failed: {told[:SHOWN]}")

    def _file(self, pod: Pod, kind: str) -> Path:
        return self._folder / f"{pod.container}.{kind}"
