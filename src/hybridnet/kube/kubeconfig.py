"""Kubeconfig files, as kubectl reads them: several are merged, relative paths start at the file that has them.

Exec plugins are not supported: they are for people's laptops, and a daemon must not start programs.
"""

import base64
import os
from pathlib import Path
from typing import Any

import msgspec
import yaml
from msgspec import Struct

from hybridnet.kube.config import Config
from hybridnet.kube.errors import ConfigError

Section = dict[str, Any]


class _Entry(Struct):
    """One named entry; *folder* is that of its file."""

    name: str
    cluster: Section | None = None
    user: Section | None = None
    context: Section | None = None
    folder: Path = Path()


class _Document(Struct, rename={"current_context": "current-context"}):
    clusters: list[_Entry] | None = None
    users: list[_Entry] | None = None
    contexts: list[_Entry] | None = None
    current_context: str = ""


def read_config(paths: list[Path]) -> Config:
    """The current context of *paths* merged: the first file that has an entry wins.

    ConfigError; one of several files may be missing, as for kubectl.
    """
    origin = os.pathsep.join(map(str, paths))
    documents = [_read(path) for path in paths if len(paths) == 1 or path.exists()]
    current = next((d.current_context for d in documents if d.current_context), "")
    contexts = [entry for document in documents for entry in document.contexts or ()]
    clusters = [entry for document in documents for entry in document.clusters or ()]
    users = [entry for document in documents for entry in document.users or ()]
    context = _find(contexts, current, "context", origin).context or {}
    cluster = _find(clusters, context.get("cluster", ""), "cluster", origin)
    user = _find(users, context.get("user", ""), "user", origin)
    return _config(cluster, user, origin)


def _config(cluster_entry: _Entry, user_entry: _Entry, origin: str) -> Config:
    cluster, user = cluster_entry.cluster or {}, user_entry.user or {}
    if "server" not in cluster:
        raise ConfigError(f"kubeconfig {origin}: cluster {cluster_entry.name!r} has no server")
    if unsupported := user.keys() & {"exec", "auth-provider"}:
        raise ConfigError(
            f"kubeconfig {origin}: user {user_entry.name!r} wants {', '.join(sorted(unsupported))}, "
            "which a daemon does not run: give it a client certificate or a token"
        )
    return Config(
        server=str(cluster["server"]).rstrip("/"),
        origin=origin,
        ca=_data(cluster, "certificate-authority", origin),
        ca_file=_file(cluster, "certificate-authority", cluster_entry.folder),
        certificate=_data(user, "client-certificate", origin),
        certificate_file=_file(user, "client-certificate", user_entry.folder),
        key=_data(user, "client-key", origin),
        key_file=_file(user, "client-key", user_entry.folder),
        token=str(user.get("token") or ""),
        token_file=_path(user.get("tokenFile"), user_entry.folder),
        server_name=str(cluster.get("tls-server-name") or ""),
        verify=not cluster.get("insecure-skip-tls-verify", False),
    )


def _read(path: Path) -> _Document:
    try:
        document = msgspec.convert(yaml.safe_load(path.read_text()) or {}, _Document)
    except (OSError, yaml.YAMLError, msgspec.ValidationError) as error:
        raise ConfigError(f"kubeconfig {path} is not usable: {error}") from error
    for entries in (document.clusters, document.users, document.contexts):
        for entry in entries or ():
            entry.folder = path.absolute().parent
    return document


def _find(entries: list[_Entry], name: str, what: str, origin: str) -> _Entry:
    for entry in entries:
        if entry.name == name:
            return entry
    raise ConfigError(f"kubeconfig {origin} has no {what} called {name!r}")


def _data(section: Section, name: str, origin: str) -> bytes:
    """``NAME-data``, decoded; it wins over the file, as for kubectl."""
    try:
        return base64.b64decode("".join((section.get(f"{name}-data") or "").split()), validate=True)
    except ValueError as error:
        raise ConfigError(f"kubeconfig {origin}: {name}-data is not base64: {error}") from error


def _file(section: Section, name: str, folder: Path) -> str:
    return "" if section.get(f"{name}-data") else _path(section.get(name), folder)


def _path(name: str | None, folder: Path) -> str:
    return str(folder / name) if name else ""
