"""What the lab reads of the API server's answers, and of the machine's limits."""

import http
from pathlib import Path

import pytest

from hybridnet.lab import cluster
from hybridnet.lab.api import Api
from hybridnet.lab.errors import CommandFailed, LabError

NODES = b"""{"items": [
  {"metadata": {"name": "ready"}, "spec": {}, "status": {"conditions": [
    {"type": "MemoryPressure", "status": "False"}, {"type": "Ready", "status": "True"}]}},
  {"metadata": {"name": "tainted"}, "spec": {"taints": [{"key": "node.kubernetes.io/not-ready"}]},
   "status": {"conditions": [{"type": "Ready", "status": "True"}]}},
  {"metadata": {"name": "down"}, "spec": {}, "status": {"conditions": [{"type": "Ready", "status": "Unknown"}]}},
  {"metadata": {"name": "new"}, "spec": {}, "status": {}}
]}"""
NETWORK = {"kind": "Network", "metadata": {"name": "overlay"}}


class Canned(Api):
    """Answers that were written down, in order; remembers what it was asked."""

    def __init__(self, *answers: tuple[int, bytes] | OSError) -> None:
        self.answers = list(answers)
        self.asked: list[str] = []

    def request(self, method: str, path: str, body: bytes | None = None) -> tuple[int, bytes]:  # noqa: ARG002
        self.asked.append(f"{method} {path}")
        answer = self.answers.pop(0)
        if isinstance(answer, OSError):
            raise answer
        return answer


def test_a_node_counts_when_it_is_ready_and_not_tainted() -> None:
    assert Canned((200, NODES)).ready_nodes() == {"ready"}


def test_an_api_server_that_does_not_answer_has_no_ready_nodes() -> None:
    assert Canned(ConnectionRefusedError()).ready_nodes() == set()
    assert Canned((503, b"")).ready_nodes() == set()
    assert not Canned(ConnectionRefusedError()).is_ready()


def test_a_kind_that_is_not_served_yet_is_asked_for_again() -> None:
    api = Canned((http.HTTPStatus.NOT_FOUND, b""), (http.HTTPStatus.CREATED, b""))
    api.create(NETWORK)
    assert api.asked == ["POST /apis/networking.alibaba.com/v1/networks"] * 2


def test_a_refusal_is_told_with_the_servers_words() -> None:
    with pytest.raises(CommandFailed, match="Network overlay: 422 netID must be set"):
        Canned((422, b"netID must be set")).create(NETWORK)


def test_a_kind_without_a_known_place_is_an_error_that_says_where_to_add_it() -> None:
    with pytest.raises(LabError, match=r"Gateway lives: add it to .*api\.py"):
        Canned().create({"kind": "Gateway", "metadata": {"name": "x"}})


def test_more_nodes_than_the_machine_can_watch_are_refused_with_the_setting_to_change(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    limit = tmp_path / "max_user_instances"
    limit.write_text("128\n")
    monkeypatch.setattr(cluster, "_INOTIFY", limit)
    cluster.check_limits(3)
    with pytest.raises(LabError, match=r"sysctl -w fs\.inotify\.max_user_instances="):
        cluster.check_limits(40)
