"""The CNI specification on our socket: the runtime's call as a value, and results in the version it asked for.

Source: https://www.cni.dev/docs/spec/ (0.3.0 to 1.1.0). The executable sends the CNI_* variables as headers and
the network configuration as the body.
"""

import hashlib
from collections.abc import Mapping

import msgspec
from msgspec import UNSET, Struct, UnsetType, field

from hybridnet.agent import errors
from hybridnet.model.address import Family
from hybridnet.plan.endpoint import Endpoint
from hybridnet.plan.layout import POD_GATEWAY_MAC
from hybridnet.plan.routing import POD_GATEWAY
from hybridnet.plan.state import DEFAULT_ROUTE

VERSIONS = ("0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0")
DEVICE_PREFIX = "hybr"


class Attachment(Struct, frozen=True, rename={"container": "containerID", "interface": "ifname"}):
    """One entry of GC's list of what is still in use."""

    container: str
    interface: str


class Configuration(Struct, frozen=True, kw_only=True):
    """The part of the network configuration that we read."""

    version: str = field(name="cniVersion", default="0.3.1")
    network: str = field(name="name", default="hybridnet")
    valid: tuple[Attachment, ...] | UnsetType | None = field(name="cni.dev/valid-attachments", default=UNSET)
    valid_too: tuple[Attachment, ...] | UnsetType | None = field(name="cni.dev/attachments", default=UNSET)
    """What the text of the specification 1.1 called it; libcni sends both."""


class Call(Struct, frozen=True, kw_only=True):
    """One call of the container runtime."""

    command: str
    container: str
    netns: str
    interface: str
    namespace: str
    pod: str
    uid: str
    configuration: Configuration

    @property
    def attachments(self) -> tuple[Attachment, ...]:
        """GC: all that is still in use. BadRequest without a list: nothing said is not "nothing in use"."""
        for found in (self.configuration.valid, self.configuration.valid_too):
            if found is not UNSET:
                return found or ()
        raise errors.BadRequest(errors.INVALID_CONFIGURATION, "GC without cni.dev/valid-attachments", "")


_CONFIGURATION = msgspec.json.Decoder(Configuration)


def parse_call(headers: Mapping[str, str], body: bytes) -> Call:
    """The call that the executable forwarded. Raises BadRequest.

    DEL asks for container and interface only: a configuration that was broken later must not keep pods for ever.
    """
    configuration = Configuration() if headers.get("CNI-Command") == "DEL" else _parse_configuration(body)
    arguments = dict(pair.split("=", 1) for pair in headers.get("CNI-Args", "").split(";") if "=" in pair)
    call = Call(
        command=headers.get("CNI-Command", ""),
        container=headers.get("CNI-ContainerID", ""),
        netns=headers.get("CNI-Netns", ""),
        interface=headers.get("CNI-Ifname", ""),
        namespace=arguments.get("K8S_POD_NAMESPACE", ""),
        pod=arguments.get("K8S_POD_NAME", ""),
        uid=arguments.get("K8S_POD_UID", ""),
        configuration=configuration,
    )
    _check(call)
    return call


def _parse_configuration(body: bytes) -> Configuration:
    try:
        configuration = _CONFIGURATION.decode(body) if body.strip() else Configuration()
    except msgspec.DecodeError as error:
        raise errors.BadRequest(
            errors.DECODE_FAILED, f"the network configuration is not usable: {error}", ""
        ) from error
    if configuration.version not in VERSIONS:
        raise errors.BadRequest(
            1, f"cniVersion {configuration.version} is not supported", f"supported: {', '.join(VERSIONS)}"
        )
    return configuration


_REQUIRED = {
    "ADD": ("container", "netns", "interface", "namespace", "pod"),
    "CHECK": ("container", "netns", "interface"),
    "DEL": ("container", "interface"),
    "GC": (),
    "STATUS": (),
}
_VARIABLE = {
    "container": "CNI_CONTAINERID",
    "netns": "CNI_NETNS",
    "interface": "CNI_IFNAME",
    "namespace": "CNI_ARGS K8S_POD_NAMESPACE",
    "pod": "CNI_ARGS K8S_POD_NAME",
}


def _check(call: Call) -> None:
    if call.command not in _REQUIRED:
        raise errors.BadRequest(errors.INVALID_ENVIRONMENT, f"CNI_COMMAND {call.command!r} is not known", "")
    for name in _REQUIRED[call.command]:
        if not getattr(call, name):
            raise errors.BadRequest(
                errors.INVALID_ENVIRONMENT, f"{_VARIABLE[name]} is not set, {call.command} needs it", ""
            )
    if len(call.interface) > 15 or "/" in call.interface or " " in call.interface:
        raise errors.BadRequest(
            errors.INVALID_ENVIRONMENT, f"CNI_IFNAME {call.interface!r} cannot be a device name", ""
        )


def device_name(container: str, interface: str) -> str:
    """Name of the host side of a pod's link: ``hybr`` and 11 hex digits of SHA-1.

    Named after the sandbox, not the pod: the sandboxes of one pod that overlap in time (a restart) cannot take
    each other's device, and DEL finds it from the container id alone.
    """
    digest = hashlib.sha1(f"{container}.{interface}".encode(), usedforsecurity=False).hexdigest()
    return DEVICE_PREFIX + digest[:11]


def result(endpoint: Endpoint, version: str) -> dict[str, object]:
    """The success answer to ADD. The host side is listed first: the bandwidth plugin shapes it."""
    old = version.startswith("0.")
    ips: list[dict[str, object]] = []
    routes: list[dict[str, str]] = []
    for pod in endpoint.addresses:
        gateway = str(POD_GATEWAY[pod.family])
        entry: dict[str, object] = {"interface": 1, "address": str(pod.address), "gateway": gateway}
        ips.append({"version": str(pod.family.value), **entry} if old else entry)
        routes.append({"dst": str(DEFAULT_ROUTE[pod.family]), "gw": gateway})
    return {
        "cniVersion": version,
        "interfaces": [
            {"name": endpoint.device, "mac": POD_GATEWAY_MAC},
            {"name": endpoint.interface, "mac": endpoint.mac, "sandbox": endpoint.netns},
        ],
        "ips": ips,
        "routes": routes,
        "dns": {},
    }


def failure(error: errors.CniError, version: str) -> dict[str, object]:
    """The error answer."""
    return {"cniVersion": version, "code": error.code, "msg": error.message, "details": error.details}


FAMILY_COUNT = {"IPv4Only": (Family.V4,), "IPv6Only": (Family.V6,), "DualStack": (Family.V4, Family.V6)}
"""Families that a pod waits for, by the ip-family label of its IPInstances."""
