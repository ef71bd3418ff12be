"""Records of the pod interfaces that this node has, one small file each, on a tmpfs.

The promise: whatever the agent built can be found again by another agent process, without the API server. The
record is written before the first kernel object and removed after the last one, so a crash at any point leaves
a record of what may be there. Files, not link aliases: a record outgrows the 255 bytes of an alias, and it has
to outlive its link to sweep what the link does not take along (proxy entries, set elements).
"""

from contextlib import suppress
from ipaddress import ip_interface
from pathlib import Path

import msgspec
import structlog
from msgspec import Struct

from hybridnet.plan.endpoint import Endpoint, PodAddress

log = structlog.get_logger(__name__)

Key = tuple[str, str]


class _Address(Struct, frozen=True):
    address: str
    subnet: str


class _Record(Struct, frozen=True):
    container: str
    interface: str
    device: str
    namespace: str
    pod: str
    uid: str
    mac: str
    mtu: int
    netns: str
    addresses: tuple[_Address, ...]


_DECODER = msgspec.json.Decoder(_Record)
_ENCODER = msgspec.json.Encoder()


class SandboxStore:
    """The records in memory and on disk. Not thread-safe: used from the event loop only."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._records: dict[Key, Endpoint] = {}
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        for path in sorted(folder.glob("*.json"), key=lambda p: (p.stat().st_mtime_ns, p.name)):
            endpoint = _read(path)
            if endpoint is not None:
                self._records[endpoint.container, endpoint.interface] = endpoint

    def get(self, container: str, interface: str) -> Endpoint | None:
        """The record of one interface."""
        return self._records.get((container, interface))

    def items(self) -> list[Endpoint]:
        """All records, the newest last: of two sandboxes of one pod it has the address."""
        return list(self._records.values())

    def save(self, endpoint: Endpoint) -> None:
        """Write a record; it is on disk when this returns. OSError when the folder cannot be written."""
        path = self._path(endpoint.container, endpoint.interface)
        record = _Record(
            **{name: getattr(endpoint, name) for name in _Record.__struct_fields__ if name != "addresses"},
            addresses=tuple(_Address(str(a.address), a.subnet) for a in endpoint.addresses),
        )
        temporary = path.with_suffix(".tmp")
        try:
            temporary.write_bytes(_ENCODER.encode(record))
            temporary.rename(path)
        except OSError:
            with suppress(OSError):
                temporary.unlink(missing_ok=True)
            raise
        self._records.pop((endpoint.container, endpoint.interface), None)
        self._records[endpoint.container, endpoint.interface] = endpoint

    def remove(self, container: str, interface: str) -> None:
        """Forget a record. No error when there is none."""
        self._records.pop((container, interface), None)
        self._path(container, interface).unlink(missing_ok=True)

    def _path(self, container: str, interface: str) -> Path:
        safe = "".join(c if c.isalnum() or c in "-_." else "_" for c in f"{container}-{interface}")
        return self._folder / f"{safe}.json"


def _read(path: Path) -> Endpoint | None:
    try:
        record = _DECODER.decode(path.read_bytes())
        addresses = tuple(PodAddress(ip_interface(a.address), a.subnet) for a in record.addresses)
    except (OSError, msgspec.DecodeError, ValueError) as error:
        log.error("sandbox record unreadable, left alone", path=str(path), error=str(error))
        return None
    fields = {name: getattr(record, name) for name in _Record.__struct_fields__ if name != "addresses"}
    return Endpoint(**fields, addresses=addresses)
