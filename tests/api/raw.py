"""The API server over plain HTTP: for objects that our typed client could not even express."""

import http.client
import json
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from hybridnet.kube.config import load_config
from hybridnet.model.resource import Resource

Manifest = dict[str, Any]


class RawApi:
    """One connection. Objects are dictionaries, answers are (status, body)."""

    def __init__(self, kubeconfig: Path) -> None:
        config = load_config(kubeconfig)
        self._connection = http.client.HTTPSConnection(
            urlsplit(config.server).netloc, timeout=30, context=config.ssl_context()
        )

    def close(self) -> None:
        self._connection.close()

    def send(self, method: str, path: str, body: Any = None, content: str = "") -> tuple[int, Manifest]:
        headers = {"Content-Type": content or "application/json"}
        self._connection.request(method, path, json.dumps(body) if body is not None else None, headers)
        answer = self._connection.getresponse()
        return answer.status, json.loads(answer.read())

    def try_create(self, resource: Resource[Any], manifest: Manifest) -> str:
        """Whether the object would be accepted: empty, or the reasons why not. Nothing is stored."""
        path = resource.path(manifest["metadata"].get("namespace", "")) + "?dryRun=All"
        return self._verdict(*self.send("POST", path, manifest))

    def try_update(self, resource: Resource[Any], old: Manifest, new: Manifest) -> str:
        """Whether the change from *old* to *new* would be accepted. Nothing is left behind."""
        name, namespace = old["metadata"]["name"], old["metadata"].get("namespace", "")
        status, stored = self.send("POST", resource.path(namespace), old)
        assert status == 201, stored
        try:
            meta = {**new["metadata"], "resourceVersion": stored["metadata"]["resourceVersion"]}
            path = resource.path(namespace, name) + "?dryRun=All"
            return self._verdict(*self.send("PUT", path, {**new, "metadata": meta}))
        finally:
            self.send("DELETE", resource.path(namespace, name))

    @staticmethod
    def _verdict(status: int, answer: Manifest) -> str:
        assert status in (200, 201, 422), answer
        return "" if status < 300 else str(answer["message"])
