"""Keys of labels, annotations and finalizers: the original's, so its objects and ours are the same."""

import hashlib

PREFIX = "networking.alibaba.com"

VERSION = f"{PREFIX}/version"
SUBNET = f"{PREFIX}/subnet"
NETWORK = f"{PREFIX}/network"
NODE = f"{PREFIX}/node"
POD = f"{PREFIX}/pod"
POD_UID = f"{PREFIX}/pod-uid"
FINALIZER = f"{PREFIX}/ip-allocated"

SPECIFIED_NETWORK = f"{PREFIX}/specified-network"
SPECIFIED_SUBNET = f"{PREFIX}/specified-subnet"
NETWORK_TYPE = f"{PREFIX}/network-type"
IP_FAMILY = f"{PREFIX}/ip-family"

VERSION_VALUE = "v1.2"
LABEL_LIMIT = 63
_HEAD = 31


def label_value(name: str) -> str:
    """*name* as a label value: as it is, or 31 characters and the MD5 of the rest, 63 in all.

    The original hashes pod names only, so a network or node with a long name broke every allocation.
    """
    if len(name) <= LABEL_LIMIT:
        return name
    digest = hashlib.md5(name[_HEAD:].encode(), usedforsecurity=False).hexdigest()
    return name[:_HEAD] + digest
