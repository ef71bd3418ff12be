"""Leader election over a Lease, as client-go does it.

The holder renews every 2 s. Others take over when the record has not changed for 15 s by their own clock: remote
clocks are never compared. The holder stops leading when it could not renew for 10 s, before anybody else may
start. A paused process can still act late, so nothing may rely on the lease for correctness.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime

import structlog
from msgspec import structs

from hybridnet.kube.client import Client
from hybridnet.kube.errors import ApiError, NotFound
from hybridnet.model.core import Lease, LeaseSpec
from hybridnet.model.meta import ObjectMeta
from hybridnet.model.resource import LEASES

log = structlog.get_logger(__name__)


class LeaderElector:
    """One candidate."""

    def __init__(
        self,
        client: Client,
        name: str,
        namespace: str,
        identity: str,
        *,
        lease_s: float = 15,
        renew_s: float = 10,
        retry_s: float = 2,
    ) -> None:
        self._client = client
        self._name = name
        self._namespace = namespace
        self._identity = identity
        self._lease_s = lease_s
        self._renew_s = renew_s
        self._retry_s = retry_s
        self._seen: Lease | None = None
        self._seen_at = 0.0
        self.leading = False

    async def run(
        self, on_started: Callable[[], Awaitable[None]], on_stopped: Callable[[], None] | None = None
    ) -> None:
        """Stand for election until cancelled; *on_started* runs while leading and is cancelled when that ends.

        When *on_started* itself ends or raises, the lease is given back and its error passes on.
        """
        while True:
            await self._acquire()
            log.info("lease acquired", lease=self._name, identity=self._identity)
            self.leading = True
            work = asyncio.ensure_future(on_started())
            try:
                await self._hold(work)
            finally:
                self.leading = False
                work.cancel()
                await asyncio.gather(work, return_exceptions=True)
                if on_stopped is not None:
                    on_stopped()
                await self._release()
            if work.done() and not work.cancelled() and (error := work.exception()) is not None:
                raise error

    async def _acquire(self) -> None:
        won = await self._try()
        while not won:
            await asyncio.sleep(self._retry_s)
            won = await self._try()

    async def _hold(self, work: "asyncio.Future[None]") -> None:
        renewed = time.monotonic()
        while True:
            await asyncio.wait((work,), timeout=self._retry_s)
            if work.done():
                return
            remaining = renewed + self._renew_s - time.monotonic()
            try:
                async with asyncio.timeout(max(remaining, 0)):
                    if await self._try():
                        renewed = time.monotonic()
                        continue
            except TimeoutError:
                log.warning("lease not renewed in time", lease=self._name)
            if time.monotonic() - renewed >= self._renew_s or self._holder() != self._identity:
                log.error("lease lost", lease=self._name, holder=self._holder())
                return

    def _holder(self) -> str:
        return self._seen.spec.holder_identity if self._seen else ""

    async def _try(self) -> bool:
        """Acquire or renew; whether we hold the lease now."""
        try:
            lease = await self._read()
            self._observe(lease)
            spec = lease.spec
            expired = time.monotonic() - self._seen_at >= self._lease_s
            if spec.holder_identity and spec.holder_identity != self._identity and not expired:
                return False
            written = await self._client.replace(LEASES, structs.replace(lease, spec=self._renewed(spec)))
            self._observe(written)
        except ApiError as error:
            log.warning("lease not acquired", lease=self._name, error=error.message)
            return False
        return True

    async def _read(self) -> Lease:
        try:
            return await self._client.get(LEASES, self._name, self._namespace)
        except NotFound:
            metadata = ObjectMeta(name=self._name, namespace=self._namespace)
            return await self._client.create(LEASES, Lease(metadata=metadata))

    def _observe(self, lease: Lease) -> None:
        if self._seen is None or lease.metadata.resource_version != self._seen.metadata.resource_version:
            self._seen, self._seen_at = lease, time.monotonic()

    def _renewed(self, spec: LeaseSpec) -> LeaseSpec:
        now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        mine = spec.holder_identity == self._identity
        return LeaseSpec(
            holder_identity=self._identity,
            lease_duration_seconds=int(max(self._lease_s, 1)),
            acquire_time=spec.acquire_time if mine else now,
            renew_time=now,
            lease_transitions=spec.lease_transitions + (0 if mine else 1),
        )

    async def _release(self) -> None:
        """Give the lease back so that the next one need not wait for it to expire."""
        if self._seen is None or self._holder() != self._identity:
            return
        spec = structs.replace(self._seen.spec, holder_identity="", lease_duration_seconds=1)
        try:
            async with asyncio.timeout(2):
                await self._client.replace(LEASES, structs.replace(self._seen, spec=spec))
            log.info("lease released", lease=self._name)
        except (ApiError, TimeoutError) as error:
            log.warning("lease not released", lease=self._name, error=str(error))
        self._seen = None
