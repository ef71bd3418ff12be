"""Leader election over a Lease, as client-go does it.

The holder renews every 2 s. Others take over when the record has not changed for its duration by their own clock:
remote clocks are never compared. The holder stops leading when it could not renew for 10 s, counted from before
the renewal that succeeded was sent, so before anybody else may start. A process that was suspended can
still act late, so nothing may rely on the lease for correctness.
"""

import asyncio
import math
import random
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

RELEASE_SECONDS = 2.0


class LeaderElector:
    """One candidate, called *identity*, for the lease *namespace*/*name*. Times are in seconds."""

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
        """ValueError unless *lease_s* > *renew_s* > *retry_s*: leaders could overlap."""
        if not lease_s > renew_s > retry_s > 0:
            raise ValueError(f"needs lease_s > renew_s > retry_s > 0, not {lease_s}, {renew_s}, {retry_s}")
        self.leading = False
        self._client = client
        self._name = name
        self._namespace = namespace
        self._identity = identity
        self._lease_s = lease_s
        self._renew_s = renew_s
        self._retry_s = retry_s
        self._seen: Lease | None = None
        self._seen_at = 0.0
        self._told = ""

    @property
    def holder(self) -> str:
        """Identity of the leader as last seen; empty when there is none."""
        return self._seen.spec.holder_identity if self._seen else ""

    async def run(
        self, on_started: Callable[[], Awaitable[None]], on_stopped: Callable[[], None] | None = None
    ) -> None:
        """Stand for election until cancelled, for any number of terms.

        *on_started* runs while leading and is cancelled when that ends; *on_stopped* is called when it has ended.
        When *on_started* ends by itself, the lease is given back and its result passes on.
        """
        while True:
            acquired = await self._acquire()
            work = asyncio.ensure_future(on_started())
            try:
                await self._hold(work, acquired)
            finally:
                await self._end(work, on_stopped)
            if not work.cancelled():
                work.result()
                return

    async def _acquire(self) -> float:
        """Wait for the lease and return when the attempt that got it began.

        An answer that comes late counts as none: the lease might have passed to somebody else by then.
        """
        while True:
            started = time.monotonic()
            if await self._attempt(self._renew_s):
                break
            await asyncio.sleep(self._retry_s * random.uniform(1.0, 1.2))  # noqa: S311  (candidates spread)
        self.leading = True
        log.info("lease acquired", lease=self._name, identity=self._identity)
        return started

    async def _hold(self, work: asyncio.Future[None], renewed: float) -> None:
        """Renew until the work ends or the lease is lost; it was last renewed at *renewed* by our clock."""
        while True:
            await asyncio.wait((work,), timeout=self._retry_s)
            started = time.monotonic()
            if work.done():
                return
            if await self._attempt(renewed + self._renew_s - started):
                renewed = started
            elif time.monotonic() - renewed >= self._renew_s or self.holder != self._identity:
                log.error("lease lost", lease=self._name, identity=self._identity, holder=self.holder)
                return

    async def _attempt(self, seconds: float) -> bool:
        """One attempt to acquire or renew, of at most *seconds*."""
        try:
            async with asyncio.timeout(max(seconds, 0)):
                return await self._try()
        except TimeoutError:
            return False

    async def _end(self, work: asyncio.Future[None], on_stopped: Callable[[], None] | None) -> None:
        """The lease is given back only when the work has really ended."""
        work.cancel()
        await asyncio.wait((work,))
        self.leading = False
        if on_stopped is not None:
            on_stopped()
        if self.holder == self._identity:
            await self._release()

    async def _try(self) -> bool:
        """Acquire or renew; whether we hold the lease now."""
        try:
            lease = await self._read()
            self._observe(lease)
            if not self._may_take(lease.spec):
                return False
            self._observe(
                await self._client.replace(LEASES, structs.replace(lease, spec=self._record(lease.spec)))
            )
        except ApiError as error:
            level = log.warning if error.reason != self._told else log.debug
            level("lease not written", lease=self._name, identity=self._identity, error=error.message)
            self._told = error.reason
            return False
        self._told = ""
        return True

    def _may_take(self, spec: LeaseSpec) -> bool:
        if not spec.holder_identity or spec.holder_identity == self._identity:
            return True
        duration = spec.lease_duration_seconds or self._lease_s
        return time.monotonic() - self._seen_at >= duration

    async def _read(self) -> Lease:
        try:
            return await self._client.get(LEASES, self._name, self._namespace)
        except NotFound:
            metadata = ObjectMeta(name=self._name, namespace=self._namespace)
            return await self._client.create(LEASES, Lease(metadata=metadata))

    def _observe(self, lease: Lease) -> None:
        """Note when a record was first seen, by our clock."""
        if self._seen is None or lease.spec != self._seen.spec:
            self._seen_at = time.monotonic()
        self._seen = lease

    def _record(self, before: LeaseSpec) -> LeaseSpec:
        now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        mine = before.holder_identity == self._identity
        return LeaseSpec(
            holder_identity=self._identity,
            lease_duration_seconds=math.ceil(self._lease_s),
            acquire_time=before.acquire_time if mine else now,
            renew_time=now,
            lease_transitions=before.lease_transitions + (0 if mine else 1),
        )

    async def _release(self) -> None:
        """Give the lease back so that the next one need not wait for it to expire."""
        if self._seen is None:
            return
        spec = structs.replace(self._seen.spec, holder_identity="", lease_duration_seconds=1)
        try:
            async with asyncio.timeout(RELEASE_SECONDS):
                self._observe(await self._client.replace(LEASES, structs.replace(self._seen, spec=spec)))
            log.info("lease released", lease=self._name, identity=self._identity)
        except (ApiError, TimeoutError) as error:
            log.warning("lease not released, it will expire", lease=self._name, error=str(error))
