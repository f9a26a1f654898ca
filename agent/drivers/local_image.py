"""A small image without a registry: Debian's static busybox packed as an archive that a container manager loads.

For `script/demo`, `wherry dev` on a machine without network, and the tests. Knows files and tar, no container manager.
"""

import hashlib
import io
import json
import platform
import shutil
import tarfile
from collections.abc import Mapping
from pathlib import Path

from manifests.errors import NotFoundError

BUSYBOX_IMAGE = "wherry/busybox:1"
APPLETS = (
    *("awk", "base64", "basename", "cat", "chmod", "cp", "cut", "date", "dd", "df", "dirname", "du", "echo", "env"),
    *("expr", "false", "find", "free", "grep", "head", "hostname", "httpd", "id", "ip", "kill", "ln", "ls", "mkdir"),
    *("mkfifo", "mount", "mv", "nc", "nproc", "nslookup", "od", "ping", "printf", "ps", "pwd", "rm", "rmdir", "sed"),
    *("seq", "setsid", "sh", "sleep", "sort", "stat", "tail", "tee", "test", "timeout", "top", "touch", "tr", "true"),
    *("tty", "uname", "uniq", "uptime", "usleep", "vi", "wc", "which", "whoami", "xargs", "yes"),
)
_PASSWD = "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/false\n"
_GROUP = "root:x:0:\nnogroup:x:65534:\n"
_FOLDERS = {"bin": 0o755, "etc": 0o755, "root": 0o700, "tmp": 0o1777, "var": 0o755, "var/www": 0o755}


def busybox_image_tar(tag: str = BUSYBOX_IMAGE) -> bytes:
    """Return the archive, in the format of `docker save`; the same bytes whenever busybox is the same.

    Raises NotFoundError if this machine has no busybox that is linked statically.
    """
    config = {"Cmd": ["/bin/sh"], "Env": ["PATH=/bin"], "WorkingDir": "/"}
    return image_archive(tag, _layer(_static_busybox()), config, created_by="wherry: busybox-static")


def image_archive(
    tag: str, layer: bytes, run_config: Mapping[str, object], *, created_by: str, machine: str = ""
) -> bytes:
    """Return an image of one layer, a tar, in the format of `docker save`; the same bytes for the same content."""
    config = _json(
        {
            "architecture": machine or architecture(),
            "os": "linux",
            "config": run_config,
            "rootfs": {"type": "layers", "diff_ids": [f"sha256:{hashlib.sha256(layer).hexdigest()}"]},
            "history": [{"created_by": created_by}],
        }
    )
    config_name = f"{hashlib.sha256(config).hexdigest()}.json"
    manifest = _json([{"Config": config_name, "RepoTags": [tag], "Layers": ["layer.tar"]}])
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name, data in (("layer.tar", layer), (config_name, config), ("manifest.json", manifest)):
            add_file(archive, name, data, mode=0o644)
    return buffer.getvalue()


def _static_busybox() -> bytes:
    found = shutil.which("busybox")
    data = Path(found).read_bytes() if found else b""
    if not data or b"/ld-linux" in data or b"/ld-musl" in data:
        raise NotFoundError(
            "cannot make the busybox image",
            why=f"{found} needs shared libraries" if found else "there is no busybox on this machine",
            fix="Install Debian's package: `apt-get install busybox-static`.",
        )
    return data


def _layer(busybox: bytes) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as layer:
        for name, mode in _FOLDERS.items():
            folder = tarfile.TarInfo(name)
            folder.type, folder.mode = tarfile.DIRTYPE, mode
            layer.addfile(folder)
        add_file(layer, "bin/busybox", busybox, mode=0o755)
        add_file(layer, "etc/passwd", _PASSWD.encode(), mode=0o644)
        add_file(layer, "etc/group", _GROUP.encode(), mode=0o644)
        for applet in APPLETS:
            link = tarfile.TarInfo(f"bin/{applet}")
            link.type, link.linkname = tarfile.SYMTYPE, "busybox"
            layer.addfile(link)
    return buffer.getvalue()


def add_file(archive: tarfile.TarFile, name: str, data: bytes, *, mode: int) -> None:
    entry = tarfile.TarInfo(name)
    entry.size, entry.mode = len(data), mode
    archive.addfile(entry, io.BytesIO(data))


def architecture() -> str:
    """Return this machine's architecture in the words of image configs."""
    machine = platform.machine()
    return {"x86_64": "amd64", "aarch64": "arm64", "armv7l": "arm"}.get(machine, machine)


def _json(value: object) -> bytes:
    return json.dumps(value, sort_keys=True).encode()
