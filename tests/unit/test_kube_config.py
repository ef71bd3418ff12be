"""Kubeconfig files and service accounts, as kubectl and pods have them."""

import base64
from pathlib import Path
from typing import Any

import pytest
import yaml

from hybridnet.kube import config as module
from hybridnet.kube.config import load_config
from hybridnet.kube.errors import ConfigError
from hybridnet.lab.certificates import Authority


@pytest.fixture(autouse=True)
def _nothing_but_the_test(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("KUBECONFIG", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setattr(module, "SERVICE_ACCOUNT", tmp_path / "serviceaccount")


def write(path: Path, *, name: str = "c", user: dict[str, Any] | None = None, **cluster: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    document = {
        "current-context": name,
        "contexts": [{"name": name, "context": {"cluster": name, "user": name}}],
        "clusters": [{"name": name, "cluster": {"server": "https://10.0.0.1:6443/", **cluster}}],
        "users": [{"name": name, "user": user or {}}],
    }
    path.write_text(yaml.safe_dump(document))
    return path


def encoded(text: bytes) -> str:
    return base64.b64encode(text).decode()


def test_data_and_token_of_a_kubeconfig(tmp_path: Path) -> None:
    path = write(tmp_path / "k", user={"token": "t"}, **{"certificate-authority-data": encoded(b"pem")})
    config = load_config(path)
    assert (config.server, config.ca, config.bearer()) == ("https://10.0.0.1:6443", b"pem", "t")
    assert config.origin == str(path)


def test_paths_start_at_the_folder_of_the_kubeconfig(tmp_path: Path) -> None:
    user = {"client-certificate": "me.crt", "client-key": "/abs/me.key", "tokenFile": "token"}
    config = load_config(write(tmp_path / "sub" / "k", user=user, **{"certificate-authority": "ca.crt"}))
    assert config.ca_file == str(tmp_path / "sub" / "ca.crt")
    assert config.certificate_file == str(tmp_path / "sub" / "me.crt")
    assert config.key_file == "/abs/me.key"
    assert config.token_file == str(tmp_path / "sub" / "token")


def test_a_token_file_is_read_for_every_request(tmp_path: Path) -> None:
    config = load_config(write(tmp_path / "k", user={"tokenFile": "token"}))
    (tmp_path / "token").write_text("one\n")
    assert config.bearer() == "one"
    (tmp_path / "token").write_text("two\n")
    assert config.bearer() == "two"
    (tmp_path / "token").unlink()
    with pytest.raises(ConfigError, match="token is not readable"):
        config.bearer()


def test_the_variable_names_several_files_and_the_first_wins(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = write(tmp_path / "1", name="one", server="https://one")
    second = write(tmp_path / "2", name="two", server="https://two")
    monkeypatch.setenv("KUBECONFIG", f"{tmp_path / 'missing'}:{first}:{second}")
    assert load_config().server == "https://one"
    assert load_config(second).server == "https://two"


def test_in_a_pod_the_service_account_is_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "serviceaccount"
    folder.mkdir()
    (folder / "token").write_text("t")
    with pytest.raises(ConfigError, match="KUBERNETES_SERVICE_HOST"):
        load_config()
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "fd00::1")
    monkeypatch.setenv("KUBERNETES_SERVICE_PORT", "443")
    config = load_config()
    assert config.server == "https://[fd00::1]:443"
    assert config.bearer() == "t"


def test_the_home_folder_comes_last(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="pass --kubeconfig"):
        load_config()
    write(tmp_path / "home" / ".kube" / "config", server="https://home")
    assert load_config().server == "https://home"


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "no context called ''"),
        ("{", "is not usable"),
        ("[1]", "is not usable"),
        ("current-context: x", "no context called 'x'"),
    ],
)
def test_a_broken_file_is_told_by_name(tmp_path: Path, text: str, told: str) -> None:
    path = tmp_path / "k"
    path.write_text(text)
    with pytest.raises(ConfigError, match=told) as raised:
        load_config(path)
    assert str(path) in str(raised.value)


def test_a_missing_file_is_told_by_name(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="absent"):
        load_config(tmp_path / "absent")


def test_a_plugin_is_refused_with_the_next_step(tmp_path: Path) -> None:
    path = write(tmp_path / "k", user={"exec": {"command": "cloud-login"}})
    with pytest.raises(ConfigError, match=r"wants exec, .*: give it a client certificate or a token"):
        load_config(path)


def test_a_client_certificate_is_loaded_and_a_changed_one_noticed(tmp_path: Path) -> None:
    authority = Authority.load_or_create(tmp_path / "pki", "test")
    user = {"client-certificate": "pki/me.crt", "client-key": "pki/me.key"}
    config = load_config(write(tmp_path / "k", user=user, **{"certificate-authority": "pki/ca.crt"}))
    with pytest.raises(ConfigError, match="not usable"):
        config.ssl_context()
    before = config.stamp()
    authority.client("me", ()).write(tmp_path / "pki", "me")
    assert config.ssl_context() is not None
    assert config.stamp() != before
