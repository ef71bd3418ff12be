"""The store of an informer against a model: indexes are never half updated."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hybridnet.kube.store import Store
from hybridnet.model.core import Pod, PodSpec
from hybridnet.model.meta import ObjectMeta

NAMES = st.sampled_from(["a", "b", "c", "d"])
NODES = st.sampled_from(["", "n1", "n2"])


def pod(name: str, node: str) -> Pod:
    return Pod(metadata=ObjectMeta(name=name, namespace="x"), spec=PodSpec(node_name=node))


def by_node(obj: Pod) -> list[str]:
    return [obj.spec.node_name] if obj.spec.node_name else []


@given(st.lists(st.tuples(NAMES, NODES | st.none())))
def test_an_index_always_tells_what_a_search_would(steps: list[tuple[str, str | None]]) -> None:
    store: Store[Pod] = Store({"node": by_node})
    model: dict[str, str] = {}
    for name, node in steps:
        if node is None:
            assert (store.remove(("x", name)) is None) == (name not in model)
            model.pop(name, None)
        else:
            store.put(pod(name, node))
            model[name] = node
        assert {obj.name for obj in store.items()} == set(model)
        for value in ("n1", "n2"):
            expected = {name for name, node in model.items() if node == value}
            assert {obj.name for obj in store.by_index("node", value)} == expected


def test_an_object_that_cannot_be_indexed_changes_nothing() -> None:
    def fragile(obj: Pod) -> list[str]:
        if obj.spec.node_name == "bad":
            raise ValueError(obj.name)
        return [obj.spec.node_name]

    store: Store[Pod] = Store({"node": by_node, "fragile": fragile})
    before = pod("a", "n1")
    store.put(before)
    with pytest.raises(ValueError, match="a"):
        store.put(pod("a", "bad"))
    assert store.get(("x", "a")) == before
    assert store.by_index("node", "n1") == store.by_index("fragile", "n1") == [before]


def test_an_index_that_does_not_exist_is_an_error() -> None:
    with pytest.raises(KeyError, match="nope"):
        Store[Pod]({}).by_index("nope", "x")
