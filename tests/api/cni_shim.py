"""The CNI executable, called as a container runtime calls it: fork and exec, CNI_* variables, stdin, stdout."""

import json
import os
import subprocess
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.api.cni_net import Net

PATIENCE = 90.0
"""Seconds; longer than the executable's own deadline."""


@dataclass(frozen=True)
class Sandbox:
    """What a runtime knows of a pod's sandbox."""

    pod: str
    uid: str
    container: str
    net: Net
    namespace: str
    interface: str = "eth0"


@dataclass(frozen=True)
class Answer:
    """How a call ended."""

    status: int
    text: str
    body: dict[str, Any] = field(default_factory=dict)

    @property
    def code(self) -> int:
        """The CNI error code; 0 for success."""
        return int(self.body["code"]) if self.status else 0

    @property
    def message(self) -> str:
        return str(self.body["msg"])


@dataclass(frozen=True)
class Shim:
    """An installed executable and the socket that its configuration names."""

    executable: Path
    socket: Path

    def add(self, sandbox: Sandbox, version: str = "1.0.0") -> dict[str, Any]:
        """ADD that must succeed; the result."""
        answer = self.call("ADD", sandbox, version=version)
        assert answer.status == 0, answer.text
        return answer.body

    def delete(self, sandbox: Sandbox, **variables: str) -> None:
        """DEL that must succeed."""
        answer = self.call("DEL", sandbox, **variables)
        assert answer.status == 0, answer.text

    def call(
        self,
        command: str,
        sandbox: Sandbox | None = None,
        *,
        version: str = "1.0.0",
        configuration: dict[str, Any] | None = None,
        stdin: bytes | None = None,
        **variables: str,
    ) -> Answer:
        """Any call, to its end. *variables* replace those that the runtime would set."""
        running = self.start(command, sandbox, **variables)
        body = self.stdin(version, configuration) if stdin is None else stdin
        output, errors = running.communicate(body, PATIENCE)
        text = output.decode()
        assert not errors, errors
        return Answer(running.returncode, text, json.loads(text) if text else {})

    def start(
        self, command: str, sandbox: Sandbox | None = None, **variables: str
    ) -> "subprocess.Popen[bytes]":
        """Start a call; the caller writes stdin and reaps it."""
        environment = {"PATH": os.environ["PATH"], "CNI_COMMAND": command, "CNI_PATH": "/opt/cni/bin"}
        if sandbox is not None:
            environment |= self.variables(sandbox)
        environment |= variables
        pipe = subprocess.PIPE
        return subprocess.Popen([self.executable], stdin=pipe, stdout=pipe, stderr=pipe, env=environment)

    def stdin(self, version: str, configuration: dict[str, Any] | None = None) -> bytes:
        """The network configuration as libcni composes it."""
        base = {"cniVersion": version, "name": "hybridnet", "type": "hybridnet"}
        return json.dumps({**base, "server_socket": str(self.socket), **(configuration or {})}).encode()

    @staticmethod
    def variables(sandbox: Sandbox) -> dict[str, str]:
        arguments = {
            "IgnoreUnknown": "1",
            "K8S_POD_NAMESPACE": sandbox.namespace,
            "K8S_POD_NAME": sandbox.pod,
            "K8S_POD_INFRA_CONTAINER_ID": sandbox.container,
            "K8S_POD_UID": sandbox.uid,
        }
        return {
            "CNI_CONTAINERID": sandbox.container,
            "CNI_NETNS": str(sandbox.net.path),
            "CNI_IFNAME": sandbox.interface,
            "CNI_ARGS": ";".join(f"{key}={value}" for key, value in arguments.items()),
        }
