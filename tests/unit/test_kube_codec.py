"""Pages of lists and lines of watches: one malformed object costs one object."""

import asyncio
import json
import subprocess
import sys
from collections.abc import AsyncIterator
from typing import Any

import pytest

from hybridnet.kube import codec
from hybridnet.kube.errors import Expired, Malformed, Unavailable
from hybridnet.kube.watch import Change, read_changes
from hybridnet.model.instance import IPBlock, IPBlockSpec
from hybridnet.model.meta import ObjectMeta
from hybridnet.model.resource import IPBLOCKS, PODS


def item(name: str, cidr: Any = "10.0.0.0/24", **metadata: Any) -> dict[str, Any]:
    return {"metadata": {"name": name, "resourceVersion": "7", **metadata}, "spec": {"cidr": cidr}}


def page(*items: Any, **metadata: Any) -> bytes:
    return json.dumps({"metadata": {"resourceVersion": "9", **metadata}, "items": items}).encode()


def test_a_page_is_read_whole() -> None:
    meta, items, rejected = codec.decode_page(IPBLOCKS, page(item("a"), item("b"), **{"continue": "next"}))
    assert (meta.resource_version, meta.next_page) == ("9", "next")
    assert [obj.name for obj in items] == ["a", "b"]
    assert rejected == []


@pytest.mark.parametrize(
    "bad", [item("bad", cidr=7), item("bad", labels="none"), {"metadata": {"name": "bad"}}]
)
def test_a_malformed_item_is_set_aside_with_its_name_and_the_reason(bad: dict[str, Any]) -> None:
    _, items, rejected = codec.decode_page(IPBLOCKS, page(item("a"), bad, item("b")))
    assert [obj.name for obj in items] == ["a", "b"]
    assert [found.name for found in rejected] == ["bad"]
    assert "$." in rejected[0].reason or "missing required field" in rejected[0].reason


@pytest.mark.parametrize("body", [b"", b"<html>", b'{"items": 5}', b"\xff\xfe"])
def test_an_answer_that_is_no_list_is_an_error_that_callers_know(body: bytes) -> None:
    with pytest.raises(Malformed):
        codec.decode_page(IPBLOCKS, body)


def test_a_malformed_object_is_named_with_the_next_step() -> None:
    with pytest.raises(Malformed, match=r"IPBlock bad cannot be read: .*cidr.*: correct or delete it"):
        codec.decode(IPBLOCKS, json.dumps(item("bad", cidr=7)).encode())


def test_an_object_is_written_with_its_kind_and_read_back() -> None:
    block = IPBlock(metadata=ObjectMeta(name="a"), spec=IPBlockSpec(cidr="10.0.0.0/24"))
    text = codec.encode(IPBLOCKS, block)
    assert json.loads(text)["apiVersion"] == "networking.alibaba.com/v1"
    assert json.loads(text)["kind"] == "IPBlock"
    assert codec.decode(IPBLOCKS, text) == block


def changes(*chunks: bytes) -> list[Change[IPBlock]]:
    async def feed() -> AsyncIterator[bytes]:
        for chunk in chunks:
            yield chunk

    async def read() -> list[Change[IPBlock]]:
        return [change async for change in read_changes(IPBLOCKS, feed())]

    return asyncio.run(read())


def line(kind: str, obj: Any) -> bytes:
    return json.dumps({"type": kind, "object": obj}).encode() + b"\n"


def test_lines_may_be_cut_anywhere_and_be_of_any_length() -> None:
    long = line("MODIFIED", item("a", annotations={"long": "x" * 300_000}))
    text = line("ADDED", item("a")) + long + line("DELETED", item("a"))
    for size in (1_000, 65_536, len(text)):
        chunks = [text[start : start + size] for start in range(0, len(text), size)]
        assert [change.type for change in changes(*chunks)] == ["ADDED", "MODIFIED", "DELETED"]


def test_a_bookmark_needs_nothing_but_its_version() -> None:
    assert changes(line("BOOKMARK", {"metadata": {"resourceVersion": "12"}})) == [Change("BOOKMARK", "12")]


def test_a_malformed_line_is_one_rejected_change() -> None:
    bad, good = changes(line("ADDED", item("bad", cidr=7)), line("ADDED", item("good")))
    assert bad.rejected is not None
    assert (bad.rejected.name, bad.resource_version, bad.object) == ("bad", "7", None)
    assert good.object is not None


@pytest.mark.parametrize(
    ("status", "error"),
    [
        ({"code": 410, "reason": "Expired", "message": "too old resource version"}, Expired),
        (
            {
                "code": 504,
                "reason": "Timeout",
                "details": {"causes": [{"reason": "ResourceVersionTooLarge"}]},
            },
            Expired,
        ),
        ({"code": 500, "reason": "InternalError", "message": "etcd"}, Unavailable),
    ],
)
def test_an_error_line_is_raised(status: dict[str, Any], error: type[Exception]) -> None:
    with pytest.raises(error):
        changes(line("ERROR", status))


def test_decoders_are_ready_before_any_thread_can_use_one() -> None:
    """msgspec crashes the process when threads build or first use a decoder at the same time."""
    program = (
        "import sys, threading\n"
        "from hybridnet.kube import codec\n"
        "from hybridnet.model import resource\n"
        "sys.setswitchinterval(1e-6)\n"
        "kinds = [r for r in vars(resource).values() if isinstance(r, resource.Resource)]\n"
        "page = b'{\"items\": []}'\n"
        "def work():\n"
        "    for kind in kinds:\n"
        "        codec.decode_page(kind, page)\n"
        "threads = [threading.Thread(target=work) for _ in range(16)]\n"
        "[t.start() for t in threads]\n"
        "[t.join() for t in threads]\n"
        "print(len(kinds))\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) >= 10
    assert PODS.type in codec._ITEM
