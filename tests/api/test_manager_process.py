"""The manager as an operator runs it: a process, with the permissions that are shipped, ended by SIGTERM."""

import asyncio
import os
import signal
import sys
from pathlib import Path

import pytest
import yaml

from hybridnet.kube.client import Client
from hybridnet.kube.config import load_config
from hybridnet.lab.controlplane import ControlPlane
from hybridnet.manager.app import LEASE
from hybridnet.model.resource import LEASES, PODS
from tests.api.manager_world import World, play

RBAC = Path(__file__).parents[2] / "deploy/rbac/manager.yaml"
ACCOUNT = "system:serviceaccount:kube-system:hybridnet-manager"


async def start(world: World, kubeconfig: Path, *arguments: str) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "hybridnet",
        "manager",
        f"--kubeconfig={kubeconfig}",
        f"--namespace={world.namespace}",
        "--identity=process",
        "--default-ip-family=IPv4",
        *arguments,
        stderr=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
    )


async def end(process: asyncio.subprocess.Process) -> str:
    process.send_signal(signal.SIGTERM)
    output, errors = await asyncio.wait_for(process.communicate(), 15)
    assert process.returncode == 0, errors.decode()
    return (output + errors).decode()


def test_sigterm_gives_the_lease_back_and_ends_cleanly(api_kubeconfig: Path) -> None:
    async def scenario(world: World) -> None:
        await world.node()
        await world.network("overlay")
        await world.subnet("over4", "overlay", "100.10.0.0/24")
        process = await start(world, world.kubeconfig)
        await world.pod("plain")
        await world.served("plain", seconds=30)
        assert (await world.client.get(LEASES, LEASE, world.namespace)).spec.holder_identity == "process"
        said = await end(process)
        assert (await world.client.get(LEASES, LEASE, world.namespace)).spec.holder_identity == ""
        assert "Traceback" not in said

    play(api_kubeconfig, scenario)


@pytest.mark.spec("F2", "W9")
def test_a_manager_that_is_paused_in_the_middle_of_its_work_does_no_harm_when_it_goes_on(
    api_kubeconfig: Path,
) -> None:
    async def scenario(world: World) -> None:
        await world.node()
        await world.network("overlay")
        await world.subnet("over4", "overlay", "100.10.0.0/25")
        processes = [await start(world, world.kubeconfig, "--no-leader-election") for _ in range(2)]
        await world.pod("first")
        await world.served("first", seconds=30)
        creating = asyncio.create_task(world.pods(100))
        for n in range(6):
            await asyncio.sleep(0.3)
            processes[n % 2].send_signal(signal.SIGSTOP)
            await asyncio.sleep(0.5)
            processes[n % 2].send_signal(signal.SIGCONT)
        await world.all_served(await creating)
        for process in processes:
            await end(process)

    play(api_kubeconfig, scenario)


def test_an_unknown_default_is_refused_with_the_choices() -> None:
    async def refuse() -> None:
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "hybridnet",
            "manager",
            "--default-ip-family=v4",
            stderr=asyncio.subprocess.PIPE,
        )
        _, errors = await asyncio.wait_for(process.communicate(), 30)
        assert process.returncode == 2
        assert "IPv4Only, IPv6Only, DualStack" in errors.decode()

    asyncio.run(refuse())


@pytest.mark.spec("W9")
def test_the_shipped_role_is_enough_and_not_more(api_server: ControlPlane, api_kubeconfig: Path) -> None:
    async def scenario(world: World) -> None:
        await world.node()
        await world.network("overlay")
        await world.subnet("over4", "overlay", "100.10.0.0/24")
        here = yaml.safe_load_all(RBAC.read_text())
        for manifest in here:
            manifest["metadata"].pop("namespace", None)
            await asyncio.to_thread(
                api_server.kubectl,
                "apply",
                f"--namespace={world.namespace}",
                "-f-",
                stdin=yaml.safe_dump(manifest).encode(),
            )
        restricted = api_server.kubeconfig_for(ACCOUNT)
        process = await start(world, restricted)
        await world.pod("plain")
        await world.served("plain", seconds=30)
        await world.event("plain", "IPAllocationSucceed")
        await world.finish("plain", "Succeeded")
        await world.nothing_left()
        await world.pod("late", specified_network="nowhere")
        await world.event("late", "IPAllocationFail")
        said = await end(process)
        assert "forbidden" not in said.lower()
        async with Client(load_config(restricted)) as client:
            with pytest.raises(Exception, match="cannot delete resource"):
                await client.delete(PODS, "plain", world.namespace)

    play(api_kubeconfig, scenario)
