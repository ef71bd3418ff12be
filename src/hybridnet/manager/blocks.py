"""Group commit of claims: one writer per block, every waiting request shares one compare-and-swap.

An address is given when the update of its IPBlock has succeeded under the resourceVersion that was read. So
two managers that both believe to lead cannot give one address twice: one of the updates fails, its writer
reads the block again and answers its requests from the new truth. An ambiguous result (connection lost,
time-out) is never believed in either direction: the block is read again first.

Pods are served in bursts, and addresses are picked behind a cursor, so a burst lands in a few blocks: while
one update is on its way, the next ones gather. Rejected: one claim object per address (100,000 objects to
read at start) and a write per pod (a queue behind one object's resourceVersion).
"""

import asyncio
from collections.abc import Mapping, Sequence

import structlog

from hybridnet.ipam.book import AddressBook
from hybridnet.ipam.claims import BlockRequest, ClaimRequest, ReleaseRequest, merge, read_block, write_block
from hybridnet.ipam.range import address_at
from hybridnet.kube.client import Client
from hybridnet.kube.errors import AlreadyExists, ApiError, Conflict, NotFound, TooManyRequests, Unavailable
from hybridnet.model.address import BLOCK_SIZE, Family, block_name, block_of
from hybridnet.model.instance import Claim, IPBlock
from hybridnet.model.resource import IPBLOCKS

log = structlog.get_logger(__name__)

RETRY_FIRST_S = 0.05
RETRY_LONGEST_S = 5.0
PAUSES_PER_WARNING = 10

BlockKey = tuple[Family, int]
_Waiting = tuple[BlockRequest, "asyncio.Future[int | None]"]


class BlockStore:
    """Claims and releases addresses in IPBlock objects; the book's ledgers follow what was read or written."""

    def __init__(self, client: Client, book: AddressBook) -> None:
        self._client = client
        self._book = book
        self._waiting: dict[BlockKey, list[_Waiting]] = {}
        self._writers: dict[BlockKey, asyncio.Task[None]] = {}
        self._closed = False

    async def claim(self, family: Family, address: int, claim: Claim, *, exact: bool = False) -> int | None:
        """Give *address* to *claim*. Returns the owner's address in this block: *address*, or (unless *exact*)
        the one that it has already; None when another holds it. ApiError when the API refuses the write."""
        number, offset = divmod(address, BLOCK_SIZE)
        answer = await self._submit((family, number), ClaimRequest(offset, claim, exact))
        return None if answer is None else number * BLOCK_SIZE + answer

    async def release(self, family: Family, address: int, owner: str) -> bool:
        """Take *address* from *owner*; False when it is not the owner's (any more)."""
        number, offset = divmod(address, BLOCK_SIZE)
        return await self._submit((family, number), ReleaseRequest(offset, owner)) is not None

    async def refresh(self, family: Family, number: int) -> None:
        """Read one block and adopt it."""
        name = block_name(block_of(address_at(family, number * BLOCK_SIZE))[0])
        try:
            block = await self._client.get(IPBLOCKS, name)
        except NotFound:
            self._book.ledgers[family].adopt(number, "", {})
            return
        _, _, claims = read_block(block)
        self._book.ledgers[family].adopt(number, block.metadata.resource_version, claims)

    async def stop(self) -> None:
        """Give up writing. What was on its way is read again by whoever leads next."""
        self._closed = True
        waiting = [future for batch in self._waiting.values() for _, future in batch]
        self._waiting.clear()
        for future in waiting:
            future.cancel()
        writers = list(self._writers.values())
        for writer in writers:
            writer.cancel()
        await asyncio.gather(*writers, return_exceptions=True)

    async def _submit(self, key: BlockKey, request: BlockRequest) -> int | None:
        if self._closed:
            raise asyncio.CancelledError
        future: asyncio.Future[int | None] = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(key, []).append((request, future))
        if key not in self._writers:
            self._writers[key] = asyncio.create_task(self._write_all(key), name=f"block {key}")
        return await future

    async def _write_all(self, key: BlockKey) -> None:
        try:
            while batch := self._waiting.pop(key, []):
                await self._write_batch(key, batch)
        finally:
            del self._writers[key]

    async def _write_batch(self, key: BlockKey, batch: list[_Waiting]) -> None:
        try:
            answers = await self._commit(key, [request for request, _ in batch])
        except (ApiError, ValueError) as error:
            _answer(batch, [error] * len(batch))
        except asyncio.CancelledError:
            for _, future in batch:
                future.cancel()
            raise
        else:
            _answer(batch, answers)

    async def _commit(self, key: BlockKey, requests: list[BlockRequest]) -> list[int | None]:
        family, number = key
        retry = _Retry(key)
        while True:
            block = self._book.ledgers[family].block(number)
            claims, answers = merge(block.claims, requests)
            if claims == block.claims:
                return answers
            try:
                await self._swap(key, block.version, claims)
            except (Conflict, AlreadyExists, NotFound):
                await self._reread(key, retry)
            except (Unavailable, TooManyRequests) as error:
                await retry.pause(error)
                await self._reread(key, retry)
            else:
                return answers

    async def _swap(self, key: BlockKey, version: str, claims: Mapping[int, Claim]) -> None:
        family, number = key
        wanted = write_block(family, number, version, claims)
        ledger = self._book.ledgers[family]
        if not claims:
            await self._client.delete(IPBLOCKS, wanted.name, resource_version=version)
            ledger.adopt(number, "", {})
            return
        written: IPBlock
        if version:
            written = await self._client.replace(IPBLOCKS, wanted)
        else:
            written = await self._client.create(IPBLOCKS, wanted)
        ledger.adopt(number, written.metadata.resource_version, claims)

    async def _reread(self, key: BlockKey, retry: "_Retry") -> None:
        while True:
            try:
                await self.refresh(*key)
            except (Unavailable, TooManyRequests) as error:
                await retry.pause(error)
            else:
                return


class _Retry:
    """Growing pauses while the API server does not answer, with a warning now and then."""

    def __init__(self, key: BlockKey) -> None:
        self._key = key
        self._pauses = 0

    async def pause(self, error: ApiError) -> None:
        if self._pauses % PAUSES_PER_WARNING == 0:
            log.warning("api server does not answer, retrying", block=self._key, error=str(error))
        delay = min(RETRY_FIRST_S * 2**self._pauses, RETRY_LONGEST_S)
        self._pauses += 1
        await asyncio.sleep(delay)


def _answer(batch: list[_Waiting], answers: Sequence[int | Exception | None]) -> None:
    for (_, future), answer in zip(batch, answers, strict=True):
        if future.done():
            continue
        if isinstance(answer, Exception):
            future.set_exception(answer)
        else:
            future.set_result(answer)
