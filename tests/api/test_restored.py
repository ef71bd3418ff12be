"""etcd restored from a backup: time goes back, and the copies must follow."""

import asyncio
import shutil
from pathlib import Path

from hybridnet.kube.client import Client
from hybridnet.kube.config import load_config
from hybridnet.kube.informer import Event, EventKind, Informer
from hybridnet.lab.controlplane import ControlPlane
from hybridnet.model.instance import IPBlock, IPBlockSpec
from hybridnet.model.meta import ObjectMeta
from hybridnet.model.resource import IPBLOCKS
from tests.api.patience import SECONDS, until


def block(number: int) -> IPBlock:
    name, cidr = f"10-7-{number}-0-24", f"10.7.{number}.0/24"
    return IPBlock(metadata=ObjectMeta(name=name), spec=IPBlockSpec(cidr=cidr))


def stop(plane: ControlPlane) -> None:
    plane.stop_api_server()
    plane.processes.pop("etcd").stop()


async def start(plane: ControlPlane) -> None:
    plane.start_etcd()  # here and not in a worker: it dies with the thread that has started it
    plane.start_api_server()
    await asyncio.to_thread(plane.wait_ready)


def test_what_the_backup_does_not_have_is_deleted_and_what_follows_is_seen(
    api_server: ControlPlane, tmp_path: Path
) -> None:
    data, backup = api_server.folder / "etcd", tmp_path / "backup"

    async def scenario() -> None:
        async with Client(load_config(api_server.kubeconfig)) as client:
            await client.create(IPBLOCKS, block(1))
            stop(api_server)
            shutil.copytree(data, backup)
            await start(api_server)

            told: list[tuple[EventKind, str]] = []
            informer = Informer(client, IPBLOCKS)

            def note(event: Event[IPBlock]) -> None:
                told.append((event.kind, event.object.name))

            informer.add_handler(note)
            task = asyncio.create_task(informer.run())
            async with asyncio.timeout(SECONDS):
                await informer.wait_synced()
            await client.create(IPBLOCKS, block(2))
            for number in range(20):
                await client.patch(IPBLOCKS, block(2).name, {"metadata": {"labels": {"n": str(number)}}})

            stop(api_server)
            shutil.rmtree(data)
            shutil.copytree(backup, data)
            await start(api_server)

            async def forgotten() -> bool:
                return (EventKind.DELETED, block(2).name) in told

            await until(forgotten)
            await client.create(IPBLOCKS, block(3))

            async def seen() -> bool:
                return (EventKind.ADDED, block(3).name) in told

            await until(seen)
            assert (EventKind.DELETED, block(1).name) not in told
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            for number in (1, 3):
                await client.delete(IPBLOCKS, block(number).name)

    asyncio.run(scenario())
