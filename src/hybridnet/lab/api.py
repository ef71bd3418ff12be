"""A handful of requests to the lab's API server, without a process for each.

kubectl costs a third of a second of a core per call, and the cores are what a lab that is coming up lacks. This is
for the lab's own errands (apply its manifests, ask for readiness); people and tests use kubectl.
"""

import http
import http.client
import ssl
from pathlib import Path

import msgspec
from msgspec import Struct, field

from hybridnet.lab.errors import CommandFailed, LabError
from hybridnet.lab.processes import wait_for

_RBAC = "/apis/rbac.authorization.k8s.io/v1"
_COLLECTIONS = {
    "CustomResourceDefinition": "/apis/apiextensions.k8s.io/v1/customresourcedefinitions",
    "ClusterRole": f"{_RBAC}/clusterroles",
    "ClusterRoleBinding": f"{_RBAC}/clusterrolebindings",
    "Role": f"{_RBAC}/namespaces/{{namespace}}/roles",
    "RoleBinding": f"{_RBAC}/namespaces/{{namespace}}/rolebindings",
    "ServiceAccount": "/api/v1/namespaces/{namespace}/serviceaccounts",
    "Network": "/apis/networking.alibaba.com/v1/networks",
    "Subnet": "/apis/networking.alibaba.com/v1/subnets",
}
_SERVED_TIMEOUT = 120.0


class _Metadata(Struct):
    name: str = ""
    namespace: str = "kube-system"


class _Condition(Struct):
    type: str
    status: str


class _Status(Struct):
    conditions: list[_Condition] = field(default_factory=list)


class _Taint(Struct):
    key: str


class _Spec(Struct):
    taints: list[_Taint] = field(default_factory=list)


class _Node(Struct):
    metadata: _Metadata
    spec: _Spec = field(default_factory=_Spec)
    status: _Status = field(default_factory=_Status)

    @property
    def is_ready(self) -> bool:
        """Ready, and pods may be placed on it."""
        ready = any(each.type == "Ready" and each.status == "True" for each in self.status.conditions)
        return ready and not self.spec.taints


class _NodeList(Struct):
    items: list[_Node]


class _Manifest(Struct):
    kind: str
    metadata: _Metadata


_NODES = msgspec.json.Decoder(_NodeList)


class Api:
    """One API server, with the rights of one client certificate. Usable from any thread."""

    def __init__(self, host: str, port: int, authority: Path, certificate: Path, key: Path) -> None:
        """*authority*, *certificate* and *key* are PEM files."""
        self._address = (host, port)
        self._context = ssl.create_default_context(cafile=str(authority))
        self._context.load_cert_chain(certificate, key)

    def is_ready(self) -> bool:
        """Whether ``/readyz`` says ok right now."""
        try:
            return self.request("GET", "/readyz")[0] == http.HTTPStatus.OK
        except (OSError, http.client.HTTPException):
            return False

    def ready_nodes(self) -> set[str]:
        """Names of the nodes that are ready and may have pods; none when the server does not answer."""
        try:
            status, body = self.request("GET", "/api/v1/nodes")
        except (OSError, http.client.HTTPException):
            return set()
        if status != http.HTTPStatus.OK:
            return set()
        return {node.metadata.name for node in _NODES.decode(body).items if node.is_ready}

    def create(self, manifest: object) -> None:
        """Create one object; waits until its kind is served. CommandFailed, NotReady."""
        about = msgspec.convert(manifest, _Manifest)
        try:
            path = _COLLECTIONS[about.kind].format(namespace=about.metadata.namespace)
        except KeyError:
            raise LabError(f"the lab does not know where {about.kind} lives: add it to {__file__}") from None
        body = msgspec.json.encode(manifest)
        wait_for(f"kind {about.kind}", lambda: self._create(about, path, body), timeout=_SERVED_TIMEOUT)

    def request(self, method: str, path: str, body: bytes | None = None) -> tuple[int, bytes]:
        """One request; status and body of the answer. OSError, HTTPException."""
        connection = http.client.HTTPSConnection(*self._address, timeout=60, context=self._context)
        try:
            connection.request(method, path, body, {"Content-Type": "application/json"})
            answer = connection.getresponse()
            return answer.status, answer.read()
        finally:
            connection.close()

    def _create(self, about: _Manifest, path: str, body: bytes) -> bool:
        """Whether it was made; not yet when the kind, or its namespace, is too new to be served."""
        try:
            status, answer = self.request("POST", path, body)
        except (OSError, http.client.HTTPException) as error:
            raise CommandFailed(f"cannot create {about.kind} {about.metadata.name}: {error}") from error
        if status == http.HTTPStatus.NOT_FOUND:
            return False
        if status not in {http.HTTPStatus.CREATED, http.HTTPStatus.CONFLICT}:
            text = answer.decode(errors="replace")
            raise CommandFailed(f"cannot create {about.kind} {about.metadata.name}: {status} {text}")
        return True
