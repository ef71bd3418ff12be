"""Container images without a registry: a docker archive around one static busybox.

Two names for the same file system: the image that pods use, whose command sleeps, and the pause image of the
container runtime. The archive is written with fixed times and owners, so it is the same in every lab.
"""

import hashlib
import io
import platform
import shutil
import tarfile
from pathlib import Path

import msgspec

from hybridnet.lab.errors import ProgramMissing
from hybridnet.lab.processes import run

IMAGE = "hybridnet.lab/busybox:1"
PAUSE = "hybridnet.lab/pause:1"

_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}
_FOLDERS = ("bin", "dev", "etc", "proc", "root", "run", "sys", "tmp", "var")
_FILES = {
    "etc/passwd": b"root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/false\n",
    "etc/group": b"root:x:0:\nnogroup:x:65534:\n",
}


def write_archive(path: Path) -> None:
    """Write the docker archive with both images to *path*. ProgramMissing without busybox."""
    layer = _layer(Path(_busybox()))
    digest = hashlib.sha256(layer).hexdigest()
    config = msgspec.json.encode(
        {
            "architecture": _ARCHITECTURES.get(platform.machine(), platform.machine()),
            "os": "linux",
            "config": {"Cmd": ["/bin/sleep", "infinity"], "Env": ["PATH=/bin"]},
            "rootfs": {"type": "layers", "diff_ids": [f"sha256:{digest}"]},
        }
    )
    name = f"{hashlib.sha256(config).hexdigest()}.json"
    manifest = msgspec.json.encode([{"Config": name, "RepoTags": [IMAGE, PAUSE], "Layers": ["layer.tar"]}])
    with tarfile.open(path, "w") as archive:
        for member, content in (("manifest.json", manifest), (name, config), ("layer.tar", layer)):
            _add(archive, member, content)


def find_busybox() -> str | None:
    """Path of busybox, None when it is not installed."""
    return shutil.which("busybox")


def _busybox() -> str:
    path = find_busybox()
    if path is None:
        raise ProgramMissing("busybox is not installed: apt-get install busybox-static, or ./dev setup")
    return path


def _layer(busybox: Path) -> bytes:
    """The file system: busybox under all its names, and what programs expect of /."""
    applets = run([str(busybox), "--list"]).stdout.decode().split()
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as layer:
        for folder in _FOLDERS:
            info = tarfile.TarInfo(folder)
            info.type, info.mode = tarfile.DIRTYPE, 0o1777 if folder == "tmp" else 0o755
            layer.addfile(info)
        _add(layer, "bin/busybox", busybox.read_bytes(), 0o755)
        for applet in applets:
            if applet != "busybox":
                info = tarfile.TarInfo(f"bin/{applet}")
                info.type, info.linkname = tarfile.SYMTYPE, "busybox"
                layer.addfile(info)
        for name, content in _FILES.items():
            _add(layer, name, content)
    return buffer.getvalue()


def _add(archive: tarfile.TarFile, name: str, content: bytes, mode: int = 0o644) -> None:
    info = tarfile.TarInfo(name)
    info.size, info.mode = len(content), mode
    archive.addfile(info, io.BytesIO(content))
