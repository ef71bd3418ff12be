"""Credentials, images, binaries and descriptions of the lab: files in a folder, no root."""

import io
import json
import stat
import tarfile
from pathlib import Path

import pytest
from cryptography import x509

from hybridnet.lab import binaries, build, image, state
from hybridnet.lab.certificates import Authority, kubeconfig
from hybridnet.lab.errors import BinaryMissing, LabExists, LabNotFound
from hybridnet.lab.state import Description, NetworkPlugin, ProxyMode


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.delenv("KUBEBUILDER_ASSETS", raising=False)
    return tmp_path


def executable(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch(mode=0o755)
    return path


def test_assets_of_envtest_come_before_our_cache(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cached = executable(binaries.cache_folder(binaries.kubernetes_version()) / "etcd")
    assert binaries.find(["etcd"])[0]["etcd"] == str(cached)
    given = executable(home / "assets" / "etcd")
    monkeypatch.setenv("KUBEBUILDER_ASSETS", str(given.parent))
    assert binaries.find(["etcd"])[0]["etcd"] == str(given)


@pytest.mark.usefixtures("home")
def test_a_half_written_binary_is_not_taken() -> None:
    folder = binaries.cache_folder(binaries.kubernetes_version())
    executable(folder / ".build-x" / "kubelet")  # where a build that was killed left it
    found, missing = binaries.find(["kubelet"])
    assert missing == ["kubelet"]
    with pytest.raises(BinaryMissing, match="dev setup"):
        found["kubelet"]
    with pytest.raises(BinaryMissing, match="kubelet"):
        binaries.require(["kubelet"])


def test_the_programs_report_the_version_that_the_module_requires() -> None:
    version = binaries.kubernetes_version()
    assert f"gitVersion={version}" in build.link_flags(version)
    assert "gitMinor=36" in build.link_flags("v1.36.3")
    text = (binaries.MODULE / "go.mod").read_text()
    assert all(package in text for package in binaries.PACKAGES.values())


def test_client_certificates_name_user_and_groups_and_are_signed_by_the_authority() -> None:
    authority = Authority.create("lab")
    certificate = x509.load_pem_x509_certificate(authority.client("bob", ("ops", "dev")).certificate)
    certificate.verify_directly_issued_by(x509.load_pem_x509_certificate(authority.pair.certificate))
    assert [a.value for a in certificate.subject] == ["ops", "dev", "bob"]


def test_server_certificates_are_valid_for_addresses_of_both_families() -> None:
    pair = Authority.create("lab").server("node1", ["172.31.0.11", "fd31::11"])
    certificate = x509.load_pem_x509_certificate(pair.certificate)
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert [str(a) for a in names.get_values_for_type(x509.IPAddress)] == ["172.31.0.11", "fd31::11"]


def test_an_authority_is_made_once_and_its_key_is_for_the_owner_alone(tmp_path: Path) -> None:
    first = Authority.load_or_create(tmp_path / "pki", "lab")
    assert Authority.load_or_create(tmp_path / "pki", "lab").pair == first.pair
    assert stat.S_IMODE((tmp_path / "pki" / "ca.key").stat().st_mode) == 0o600


def test_a_kubeconfig_carries_everything_it_needs() -> None:
    authority = Authority.create("lab")
    config = json.loads(kubeconfig("https://1.2.3.4:6443", b"CA", authority.client("bob"), "bob"))
    assert config["clusters"][0]["cluster"]["server"] == "https://1.2.3.4:6443"
    assert config["contexts"][0]["context"] == {"cluster": "lab", "user": "bob"}
    assert set(config["users"][0]["user"]) == {"client-certificate-data", "client-key-data"}


def test_a_name_can_be_claimed_once_and_is_remembered(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(state, "ROOT", tmp_path)
    lab = Description(
        name="one", nodes=2, slot=4, kube_proxy=ProxyMode.NFTABLES, network_plugin=NetworkPlugin.BRIDGE
    )
    with pytest.raises(LabNotFound, match="lab up --name one"):
        state.load("one")
    state.save(lab)
    assert state.load("one") == lab
    assert state.slots() == {4}
    with pytest.raises(LabExists, match="lab down --name one"):
        state.save(lab)


def test_the_image_archive_is_what_container_runtimes_import(tmp_path: Path) -> None:
    if not image.find_busybox():
        pytest.skip("busybox-static is not installed")
    path = tmp_path / "images.tar"
    image.write_archive(path)
    with tarfile.open(path) as archive:
        manifest = json.load(archive.extractfile("manifest.json") or io.BytesIO())
        assert manifest[0]["RepoTags"] == [image.IMAGE, image.PAUSE]
        inner = archive.extractfile(manifest[0]["Layers"][0])
        with tarfile.open(fileobj=inner) as layer:
            assert layer.getmember("bin/sh").linkname == "busybox"
            assert layer.getmember("bin/busybox").mode & 0o111
