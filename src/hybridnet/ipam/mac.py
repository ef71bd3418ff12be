"""MAC addresses of pods: the prefix 02:12:34 (locally administered, unicast) and 24 random bits.

Random bits come from the operating system. With 10,000 pods about three pairs would collide by chance, so a
new one is compared with all that this process knows. One pod has one MAC, shared by both families.
"""

import secrets

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
        mac = _random()
        while mac in self._owners:
            mac = _random()
        self.learn(owner, mac)
        return mac

    def learn(self, owner: str, mac: str) -> None:
        """Note a MAC that exists already."""
        self.forget(owner)
        self._by_owner[owner] = mac
        self._owners.setdefault(mac, set()).add(owner)

    def forget(self, owner: str) -> None:
        """Forget the MAC of a pod that is gone."""
        mac = self._by_owner.pop(owner, None)
        if mac is None:
            return
        self._owners[mac].discard(owner)
        if not self._owners[mac]:
            del self._owners[mac]


def _random() -> str:
    return f"{PREFIX}:{secrets.token_bytes(3).hex(':')}"
