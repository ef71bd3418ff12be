"""Candidates for one lease against a real API server. Times are short; their order is what is tested."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import pytest

from hybridnet.kube.client import Client
from hybridnet.kube.config import Config, load_config
from hybridnet.kube.election import LeaderElector
from hybridnet.kube.errors import NotFound
from hybridnet.lab.controlplane import ControlPlane
from hybridnet.model.resource import LEASES
from tests.api.patience import SECONDS, until

NAMESPACE = "kube-system"


class Candidate:
    """A candidate and what became of it."""

    def __init__(self, client: Client, name: str, identity: str, times: tuple[float, float, float]) -> None:
        lease, renew, retry = times
        self.elector = LeaderElector(
            client, name, NAMESPACE, identity, lease_s=lease, renew_s=renew, retry_s=retry
        )
        self.story: list[str] = []
        self.working = asyncio.Event()
        self._task = asyncio.create_task(self.elector.run(self._work, lambda: self.story.append("stopped")))

    async def _work(self) -> None:
        self.story.append("started")
        self.working.set()
        try:
            await asyncio.Event().wait()
        finally:
            self.working.clear()
            self.story.append("ended")

    async def lead(self) -> None:
        async with asyncio.timeout(SECONDS):
            await self.working.wait()

    async def stop(self) -> None:
        self._task.cancel()
        with suppress(asyncio.CancelledError):
            await self._task


FAST = (2.0, 1.0, 0.2)


@asynccontextmanager
async def candidate(
    client: Client, name: str, identity: str, times: tuple[float, float, float] = FAST
) -> AsyncIterator[Candidate]:
    made = Candidate(client, name, identity, times)
    try:
        yield made
    finally:
        await made.stop()


def with_clients(kubeconfig: Path, scenario: Callable[[Client, Client], Awaitable[None]]) -> None:
    async def run() -> None:
        config = load_config(kubeconfig)
        async with Client(config) as one, Client(config) as two:
            await scenario(one, two)

    asyncio.run(run())


def test_one_of_two_leads_and_the_other_follows_at_once_when_it_stops(api_kubeconfig: Path) -> None:
    async def scenario(one: Client, two: Client) -> None:
        long = (600.0, 300.0, 0.2)  # only a lease that is given back passes on within this test
        async with candidate(one, "orderly", "a", long) as first:
            await first.lead()
            async with candidate(two, "orderly", "b", long) as second:
                await asyncio.sleep(1)
                assert second.story == []
                assert second.elector.holder == "a"
                await first.stop()
                assert first.story == ["started", "ended", "stopped"]
                await second.lead()
                lease = await one.get(LEASES, "orderly", NAMESPACE)
                assert (lease.spec.holder_identity, lease.spec.lease_transitions) == ("b", 2)

    with_clients(api_kubeconfig, scenario)


def test_a_leader_that_vanished_is_succeeded_when_its_lease_expires(api_kubeconfig: Path) -> None:
    async def scenario(one: Client, two: Client) -> None:
        async with candidate(one, "vanished", "a") as first:
            await first.lead()
            await one.close()  # it can neither renew nor give back
            async with candidate(two, "vanished", "b") as second:
                await second.lead()
                assert first.story == ["started", "ended", "stopped"], "it ends before another starts"

    with_clients(api_kubeconfig, scenario)


def test_a_leader_whose_lease_was_taken_stops_and_stands_again(api_kubeconfig: Path) -> None:
    async def scenario(one: Client, two: Client) -> None:
        async with candidate(one, "taken", "a") as first:
            await first.lead()
            spec = {"holderIdentity": "thief", "leaseDurationSeconds": 1}
            await two.patch(LEASES, "taken", {"spec": spec}, NAMESPACE)

            async def leads_again() -> bool:
                return first.story == ["started", "ended", "stopped", "started"]

            await until(leads_again)

    with_clients(api_kubeconfig, scenario)


def test_a_short_outage_does_not_end_a_term(api_server: ControlPlane, api_kubeconfig: Path) -> None:
    async def scenario(one: Client, two: Client) -> None:
        async with candidate(one, "outage", "a", (120.0, 90.0, 0.2)) as first:
            await first.lead()
            before = await two.get(LEASES, "outage", NAMESPACE)
            api_server.stop_api_server()
            await asyncio.sleep(1)
            api_server.start_api_server()
            await asyncio.to_thread(api_server.wait_ready)

            async def renewed() -> bool:
                return (await two.get(LEASES, "outage", NAMESPACE)).spec != before.spec

            await until(renewed)
            assert first.story == ["started"]

    with_clients(api_kubeconfig, scenario)


def test_what_the_work_raises_passes_on_and_the_lease_is_given_back(api_kubeconfig: Path) -> None:
    async def scenario(one: Client, two: Client) -> None:
        async def fail() -> None:
            raise LookupError("nothing to lead")

        elector = LeaderElector(one, "failing", NAMESPACE, "a")
        with pytest.raises(LookupError, match="nothing to lead"):
            await elector.run(fail)
        assert (await two.get(LEASES, "failing", NAMESPACE)).spec.holder_identity == ""
        assert not elector.leading

    with_clients(api_kubeconfig, scenario)


def test_a_candidate_without_permission_waits_and_does_not_lead(api_server: ControlPlane) -> None:
    async def scenario() -> None:
        config = load_config(api_server.kubeconfig_for("nobody"))
        async with Client(config) as client, candidate(client, "forbidden", "a") as first:
            await asyncio.sleep(1)
            assert first.story == []

    asyncio.run(scenario())
    with_clients(api_server.kubeconfig, _assert_no_lease)


async def _assert_no_lease(one: Client, _: Client) -> None:
    with pytest.raises(NotFound):
        await one.get(LEASES, "forbidden", NAMESPACE)


@pytest.mark.parametrize("times", [(10, 10, 2), (15, 2, 2), (15, 10, 0)])
def test_times_that_would_let_leaders_overlap_are_refused(times: tuple[float, float, float]) -> None:
    client = Client(Config(server="http://127.0.0.1:1", origin="test"))
    with pytest.raises(ValueError, match="lease_s > renew_s"):
        LeaderElector(client, "x", NAMESPACE, "a", lease_s=times[0], renew_s=times[1], retry_s=times[2])
