"""The client against a real API server."""

import asyncio
from pathlib import Path

import pytest

from hybridnet.kube.client import Client
from hybridnet.kube.config import load_config
from hybridnet.kube.errors import AlreadyExists, Conflict, NotFound
from hybridnet.model.instance import IPBlock, IPBlockSpec
from hybridnet.model.meta import ObjectMeta
from hybridnet.model.resource import IPBLOCKS


def test_an_object_is_created_read_replaced_and_deleted(api_kubeconfig: Path) -> None:
    async def scenario() -> None:
        async with Client(load_config(api_kubeconfig)) as client:
            wanted = IPBlock(metadata=ObjectMeta(name="10-9-0-0-24"), spec=IPBlockSpec(cidr="10.9.0.0/24"))
            made = await client.create(IPBLOCKS, wanted)
            assert made.metadata.uid
            with pytest.raises(AlreadyExists):
                await client.create(IPBLOCKS, wanted)
            assert await client.get(IPBLOCKS, made.name) == made
            labelled = await client.patch(IPBLOCKS, made.name, {"metadata": {"labels": {"a": "b"}}})
            with pytest.raises(Conflict):
                await client.replace(IPBLOCKS, made)
            await client.replace(IPBLOCKS, labelled)
            with pytest.raises(Conflict):
                await client.delete(IPBLOCKS, made.name, uid="other")
            await client.delete(IPBLOCKS, made.name, uid=made.metadata.uid)
            with pytest.raises(NotFound):
                await client.get(IPBLOCKS, made.name)

    asyncio.run(scenario())
