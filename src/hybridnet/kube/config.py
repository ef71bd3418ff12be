"""Where the API server is and who we are: kubeconfig, or the service account of the pod.

Credentials in files are read again when the files change, because they are rotated under a running process.
Order: explicit path, ``$KUBECONFIG``, service account, ``~/.kube/config``. Exec plugins are not supported: they
are for people's laptops, and a daemon must not start programs.
"""

import base64
import os
import ssl
import tempfile
from pathlib import Path
from typing import Any

import msgspec
import yaml
from msgspec import Struct

from hybridnet.kube.errors import ConfigError

SERVICE_ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")


class Config(Struct, frozen=True):
    """How to reach the API server. Paths are empty when not used."""

    server: str
    origin: str
    """Where this was read from, for messages."""
    ca: bytes = b""
    certificate: bytes = b""
    key: bytes = b""
    token: str = ""
    token_file: str = ""
    ca_file: str = ""
    server_name: str = ""
    verify: bool = True

    def ssl_context(self) -> ssl.SSLContext | None:
        """A context for the present credentials; None for a plain http server. ConfigError when unusable."""
        if not self.server.startswith("https"):
            return None
        try:
            return self._context()
        except (OSError, ssl.SSLError) as error:
            raise ConfigError(f"the credentials in {self.origin} are not usable: {error}") from error

    def _context(self) -> ssl.SSLContext:
        data = Path(self.ca_file).read_bytes() if self.ca_file else self.ca
        context = ssl.create_default_context(cadata=data.decode() if data else None)
        if not self.verify:
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        if self.certificate and self.key:
            # The ssl module takes files only; the key is on disk no longer than this call.
            with tempfile.NamedTemporaryFile(prefix="hybridnet-") as file:
                file.write(self.certificate + b"\n" + self.key)
                file.flush()
                context.load_cert_chain(file.name)
        return context

    def bearer(self) -> str:
        """The present token; empty when there is none."""
        if not self.token_file:
            return self.token
        try:
            return Path(self.token_file).read_text().strip()
        except OSError as error:
            raise ConfigError(f"the token file {self.token_file} is not readable: {error}") from error


class _Named(Struct):
    name: str
    cluster: dict[str, Any] = {}
    user: dict[str, Any] = {}
    context: dict[str, Any] = {}


class _Kubeconfig(Struct, rename={"current_context": "current-context"}):
    clusters: list[_Named] = []
    users: list[_Named] = []
    contexts: list[_Named] = []
    current_context: str = ""


def load_config(path: str | Path | None = None) -> Config:
    """The configuration by the order above. ConfigError says what was looked for."""
    given = str(path or os.environ.get("KUBECONFIG", "").split(":")[0])
    if given:
        return _from_file(Path(given))
    if (SERVICE_ACCOUNT / "token").exists():
        return _in_cluster()
    home = Path.home() / ".kube" / "config"
    if home.exists():
        return _from_file(home)
    raise ConfigError(
        "no kubeconfig: pass --kubeconfig, set KUBECONFIG, or run as a pod with a service account"
    )


def _in_cluster() -> Config:
    host, port = (
        os.environ.get("KUBERNETES_SERVICE_HOST", ""),
        os.environ.get("KUBERNETES_SERVICE_PORT", "443"),
    )
    if not host:
        raise ConfigError("there is a service account but KUBERNETES_SERVICE_HOST is not set")
    address = f"[{host}]" if ":" in host else host
    return Config(
        server=f"https://{address}:{port}",
        origin=str(SERVICE_ACCOUNT),
        token_file=str(SERVICE_ACCOUNT / "token"),
        ca_file=str(SERVICE_ACCOUNT / "ca.crt"),
    )


def _from_file(path: Path) -> Config:
    try:
        document = msgspec.convert(yaml.safe_load(path.read_text()), _Kubeconfig)
    except (OSError, yaml.YAMLError, msgspec.ValidationError) as error:
        raise ConfigError(f"kubeconfig {path} is not usable: {error}") from error
    context = _entry(document.contexts, document.current_context, "context", path).context
    cluster = _entry(document.clusters, context.get("cluster", ""), "cluster", path).cluster
    user = _entry(document.users, context.get("user", ""), "user", path).user
    if "server" not in cluster:
        raise ConfigError(f"kubeconfig {path}: the cluster has no server")
    return Config(
        server=str(cluster["server"]).rstrip("/"),
        origin=str(path),
        ca=_material(cluster, "certificate-authority", path),
        certificate=_material(user, "client-certificate", path),
        key=_material(user, "client-key", path),
        token=str(user.get("token", "")),
        token_file=str(user.get("tokenFile", "")),
        server_name=str(cluster.get("tls-server-name", "")),
        verify=not cluster.get("insecure-skip-tls-verify", False),
    )


def _entry(entries: list[_Named], name: str, what: str, path: Path) -> _Named:
    for entry in entries:
        if entry.name == name:
            return entry
    raise ConfigError(f"kubeconfig {path} has no {what} called {name!r}")


def _material(section: dict[str, Any], name: str, path: Path) -> bytes:
    """``NAME-data`` (base64) or the content of the file ``NAME``, relative to the kubeconfig."""
    if data := section.get(f"{name}-data"):
        return base64.b64decode(str(data))
    if file := section.get(name):
        try:
            return Path(path.parent, str(file)).read_bytes()
        except OSError as error:
            raise ConfigError(f"kubeconfig {path}: {name} {file} is not readable: {error}") from error
    return b""
