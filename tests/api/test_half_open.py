"""A connection that is dead and does not know it."""

import asyncio
from pathlib import Path

import pytest

from hybridnet.kube import transport, watch
from hybridnet.kube.client import Client
from hybridnet.kube.config import load_config
from hybridnet.kube.errors import Unavailable
from hybridnet.kube.informer import Informer
from hybridnet.model.instance import IPBlock, IPBlockSpec
from hybridnet.model.meta import ObjectMeta
from hybridnet.model.resource import IPBLOCKS
from tests.api.patience import SECONDS, until
from tests.api.proxy import proxied

BLOCK = IPBlock(metadata=ObjectMeta(name="10-8-0-0-24"), spec=IPBlockSpec(cidr="10.8.0.0/24"))


def test_a_watch_that_went_dead_is_resumed_and_misses_nothing(
    api_kubeconfig: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watch, "LIFETIME_SECONDS", (1, 1))
    monkeypatch.setattr(watch, "GRACE_SECONDS", 0.5)
    config = load_config(api_kubeconfig)

    async def scenario() -> None:
        async with (
            Client(config) as direct,
            proxied(config) as (proxy, through),
            Client(through) as client,
        ):
            informer = Informer(client, IPBLOCKS)
            task = asyncio.create_task(informer.run())
            async with asyncio.timeout(SECONDS):
                await informer.wait_synced()
            proxy.freeze()
            await direct.create(IPBLOCKS, BLOCK)

            async def seen() -> bool:
                return informer.get(BLOCK.name) is not None

            await until(seen)
            await direct.delete(IPBLOCKS, BLOCK.name)
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    asyncio.run(scenario())


def test_a_write_on_a_dead_connection_ends_as_ambiguous_and_the_next_one_works(
    api_kubeconfig: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transport, "REQUEST_SECONDS", 1.0)
    config = load_config(api_kubeconfig)

    async def scenario() -> None:
        async with proxied(config) as (proxy, through), Client(through) as client:
            await client.list(IPBLOCKS)
            proxy.freeze()
            with pytest.raises(Unavailable, match=r"did not answer POST .* in time"):
                await client.create(IPBLOCKS, BLOCK)
            assert await client.create(IPBLOCKS, BLOCK)
            await client.delete(IPBLOCKS, BLOCK.name)
            assert proxy.opened == 2

    asyncio.run(scenario())
