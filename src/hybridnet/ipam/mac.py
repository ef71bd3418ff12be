"""MAC addresses of pods: the prefix 02:12:34 (locally administered) and 24 bits of a hash of the pod's UID.

A UID is random, so the bits are; but two managers that serve the same pod at once, or one that restarts in
between, arrive at the same MAC, and both families of a pod always share it. With 10,000 pods about three
pairs would collide by chance, so a new MAC is compared with all that this process knows, and the next hash is
taken if need be. Rejected: random bits drawn by each manager (two writers gave the two families of one pod
different MACs).
"""

from hashlib import sha256

PREFIX = "02:12:34"


class MacRegistry:
    """Which pod (by UID) has which MAC."""

    def __init__(self) -> None:
        self._by_owner: dict[str, str] = {}
        self._owners: dict[str, set[str]] = {}

    def __len__(self) -> int:
        return len(self._by_owner)

    def __contains__(self, mac: str) -> bool:
        return mac in self._owners

    def assign(self, owner: str) -> str:
        """The MAC of *owner*: the one it has, else a new one that nobody has."""
        known = self._by_owner.get(owner)
        if known is not None:
            return known
        attempt = 0
        while (mac := _derive(owner, attempt)) in self._owners:
            attempt += 1
        self.learn(owner, mac)
        return mac

    def learn(self, owner: str, mac: str) -> None:
        """Note a MAC that exists already."""
        if self._by_owner.get(owner) == mac:
            return
        self.forget(owner)
        self._by_owner[owner] = mac
        self._owners.setdefault(mac, set()).add(owner)

    def learn_first(self, owner: str, mac: str) -> None:
        """Note a MAC that exists already, unless the owner is known with one."""
        if owner not in self._by_owner:
            self.learn(owner, mac)

    def forget(self, owner: str) -> None:
        """Forget the MAC of a pod that is gone."""
        mac = self._by_owner.pop(owner, None)
        if mac is None:
            return
        self._owners[mac].discard(owner)
        if not self._owners[mac]:
            del self._owners[mac]


def _derive(owner: str, attempt: int) -> str:
    digest = sha256(f"hybridnet pod {owner} {attempt}".encode()).digest()
    return f"{PREFIX}:{digest[:3].hex(':')}"
