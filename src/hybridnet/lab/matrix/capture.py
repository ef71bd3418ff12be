"""What crosses the switch: every frame once, where it enters, without losing any.

One packet socket for all ports, inbound only; a thread of its own empties it, because the event loop is busy with
the probes. The kernel counts what it had to drop: then the run proves nothing, and says so.
"""

import contextlib
import socket
import struct
import threading
from collections import defaultdict
from typing import Self

from hybridnet.kernel.namespace import Namespace
from hybridnet.kernel.netlink import SO_RCVBUFFORCE
from hybridnet.lab.matrix.frames import MAGIC, Sighting, parse_frame

_ETH_P_ALL = 3
_SOL_PACKET, _PACKET_STATISTICS, _PACKET_IGNORE_OUTGOING = 263, 6, 23
_BUFFER = 64 << 20
_LONGEST_FRAME = 1 << 17
_POLL_SECONDS = 0.2


class Capture:
    """Sightings by probe number; a context manager."""

    def __init__(self, switch: Namespace) -> None:
        self._sightings: dict[int, list[Sighting]] = defaultdict(list)
        self.dropped = 0
        self._stopping = threading.Event()
        self._socket = switch.run(_open)
        self._thread = threading.Thread(target=self._read, name="capture", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopping.set()
        self._thread.join()
        self.dropped += struct.unpack("=II", self._socket.getsockopt(_SOL_PACKET, _PACKET_STATISTICS, 8))[1]
        self._socket.close()

    def of(self, number: int) -> list[Sighting]:
        """The sightings of one probe so far."""
        return list(self._sightings.get(number, ()))

    def _read(self) -> None:
        while not self._stopping.is_set():
            with contextlib.suppress(TimeoutError):
                frame = self._socket.recv(_LONGEST_FRAME)
                if MAGIC in frame and (found := parse_frame(frame)) is not None:
                    self._sightings[found.number].append(found)


def _open() -> socket.socket:
    opened = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(_ETH_P_ALL))
    opened.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, _BUFFER)
    opened.setsockopt(_SOL_PACKET, _PACKET_IGNORE_OUTGOING, 1)
    opened.settimeout(_POLL_SECONDS)
    return opened
