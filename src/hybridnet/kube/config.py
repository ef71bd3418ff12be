"""Where the API server is and who we are: kubeconfig, or the service account of the pod.

Credentials in files are read again when the files change, because they are rotated under a running process.
Order: explicit path, ``$KUBECONFIG``, service account, ``~/.kube/config``.
"""

import os
import ssl
from pathlib import Path

from msgspec import Struct

from hybridnet.kube.errors import ConfigError

SERVICE_ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")

Stamp = tuple[tuple[str, int, int], ...]


class Config(Struct, frozen=True, kw_only=True):
    """How to reach the API server. A file, where one is named, wins over data."""

    server: str
    origin: str
    """Where this was read from, for messages."""
    ca: bytes = b""
    ca_file: str = ""
    certificate: bytes = b""
    certificate_file: str = ""
    key: bytes = b""
    key_file: str = ""
    token: str = ""
    token_file: str = ""
    server_name: str = ""
    """Name in the server's certificate, if not the host of the URL."""
    verify: bool = True

    def stamp(self) -> Stamp:
        """Changes when a certificate or key on disk does; a missing file is no error here."""
        names = (name for name in (self.ca_file, self.certificate_file, self.key_file) if name)
        return tuple(_stamp(name) for name in names)

    def ssl_context(self) -> ssl.SSLContext | None:
        """A context for the present credentials; None for a plain http server. ConfigError when unusable."""
        if not self.server.startswith("https"):
            return None
        try:
            return self._context()
        except (OSError, ValueError) as error:  # ssl.SSLError is an OSError
            raise ConfigError(f"the credentials in {self.origin} are not usable: {error}") from error

    def bearer(self) -> str:
        """The present token; empty when there is none. ConfigError when its file is not readable."""
        if not self.token_file:
            return self.token
        try:
            return Path(self.token_file).read_text().strip()
        except OSError as error:
            raise ConfigError(f"the token file {self.token_file} is not readable: {error}") from error

    def _context(self) -> ssl.SSLContext:
        data = _content(self.ca, self.ca_file)
        context = ssl.create_default_context(cadata=data.decode() if data else None)
        if not self.verify:
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        certificate = _content(self.certificate, self.certificate_file)
        key = _content(self.key, self.key_file)
        if certificate and key:
            _load_pair(context, certificate + b"\n" + key)
        return context


def load_config(path: str | Path | None = None) -> Config:
    """The configuration by the order above. ConfigError says what was looked for.

    Several files in ``$KUBECONFIG`` are merged as kubectl does: the first that has an entry wins.
    """
    from hybridnet.kube.kubeconfig import read_config  # noqa: PLC0415  (YAML is not needed in a pod)

    if path:
        return read_config([Path(path)])
    if given := [Path(name) for name in os.environ.get("KUBECONFIG", "").split(os.pathsep) if name]:
        return read_config(given)
    if (SERVICE_ACCOUNT / "token").exists():
        return _in_cluster()
    home = Path.home() / ".kube" / "config"
    if home.exists():
        return read_config([home])
    raise ConfigError(
        "no kubeconfig: pass --kubeconfig, set KUBECONFIG, or run as a pod with a service account"
    )


def _in_cluster() -> Config:
    host = os.environ.get("KUBERNETES_SERVICE_HOST", "")
    port = os.environ.get("KUBERNETES_SERVICE_PORT", "443")
    if not host:
        raise ConfigError("there is a service account but KUBERNETES_SERVICE_HOST is not set: is this a pod?")
    address = f"[{host}]" if ":" in host else host
    return Config(
        server=f"https://{address}:{port}",
        origin=str(SERVICE_ACCOUNT),
        token_file=str(SERVICE_ACCOUNT / "token"),
        ca_file=str(SERVICE_ACCOUNT / "ca.crt"),
    )


def _content(data: bytes, file: str) -> bytes:
    return Path(file).read_bytes() if file else data


def _load_pair(context: ssl.SSLContext, pair: bytes) -> None:
    """The ssl module takes files only: one in memory, so that a key from a kubeconfig never is on disk."""
    descriptor = os.memfd_create("client-certificate")
    with os.fdopen(descriptor, "wb") as file:
        file.write(pair)
        file.flush()
        context.load_cert_chain(f"/proc/self/fd/{descriptor}")


def _stamp(name: str) -> tuple[str, int, int]:
    try:
        status = Path(name).stat()
    except OSError:
        return name, 0, 0
    return name, status.st_mtime_ns, status.st_ino
