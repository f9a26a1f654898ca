"""The oci driver's images: where each reference comes from, and the folders that overlayfs lays over one another.

    dir:/srv/web               a folder is the root file system
    host:/                     this host's own programs and libraries, read only
    oci:/srv/web:1.0           an OCI image layout;  oci-archive:/srv/web.tar:1.0  a tar of one
    docker-archive:/srv/a.tar  what `docker save` writes
    nginx:1.27                 anything else is pulled from its registry, by skopeo

Layers are unpacked once each, by digest, and shared by all images that have them. All methods block.
"""

import hashlib
import json
import os
import secrets
import shutil
import subprocess
import sys
import tarfile
import threading
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, BinaryIO

from agent.driver import SANDBOX_IMAGE, ImageError
from agent.drivers import oci_unpack
from agent.drivers.local_image import BUSYBOX_IMAGE, busybox_image_tar
from agent.drivers.oci_layout import Described, Files, FolderFiles, Layer, describe_docker, describe_oci, tar_files
from agent.drivers.oci_pull import PULL_TIMEOUT_S, TAG, Skopeo
from agent.drivers.pull_progress import pulling
from agent.drivers.sandbox_image import sandbox_image_tar
from agent.references import at_digest
from agent.registries import Registries
from manifests.containers import PullPolicy

MADE_HERE: Mapping[str, Callable[[str], bytes]] = {SANDBOX_IMAGE: sandbox_image_tar, BUSYBOX_IMAGE: busybox_image_tar}
LOCAL_KINDS = ("dir", "oci", "oci-archive", "docker-archive")
# What programs of the host need of /etc. Not all of it: that holds the host's secrets.
_HOST_ETC = (
    *("alternatives", "ca-certificates", "group", "ld.so.cache", "ld.so.conf", "ld.so.conf.d", "localtime"),
    *("mime.types", "nsswitch.conf", "passwd", "pki", "protocols", "services", "ssl/certs", "ssl/openssl.cnf"),
)
_HOST_FOLDERS = ("usr", "bin", "sbin", "lib", "lib32", "lib64", "libx32")
_SKELETON = {"etc": 0o755, "home": 0o755, "opt": 0o755, "root": 0o700, "run": 0o755, "srv": 0o755, "tmp": 0o1777}


@dataclass(frozen=True, slots=True)
class Image:
    """How to run an image."""

    layers: tuple[str, ...]  # folders, the topmost first, absolute or below Images.layers
    entrypoint: tuple[str, ...] = ()
    command: tuple[str, ...] = ()
    env: tuple[str, ...] = ()
    working_dir: str = ""
    user: str = ""
    binds: tuple[str, ...] = ()  # of the host, read only, at the same path inside


@dataclass(frozen=True, slots=True)
class Record:
    """What is known of one name of an image."""

    name: str
    digest: str  # in its registry; "" for what came from none
    image: Image


class Images:
    """`folder` is the store's own; images in files are read only below one of `allowed`."""

    def __init__(self, folder: Path, allowed: Sequence[Path], registries: Registries | None = None) -> None:
        self.layers = folder / "layers"
        self._names = folder / "names"
        self._skeleton = folder / "skeleton"
        self._allowed = tuple(allowed)
        self._registries = registries or Registries()
        self._drafts: dict[str, Path] = {}  # where pulls under way are written to
        self._locks: Mapping[str, threading.Lock] = defaultdict(threading.Lock)
        self._skopeo = Skopeo()
        self.guard = threading.Lock()  # of `needed`, and against who removes layers
        self.needed: Counter[str] = Counter()  # layers of images that are being stored

    def find(self, reference: str) -> Image | None:
        """Return an image that is ready to run; of a folder, or the host, as it is now. Raises ImageError."""
        kind, _, path = reference.partition(":")
        if kind == "host":
            return self._host(reference)
        if kind == "dir":
            return Image((str(self._allowed_path(reference, path)),))
        record = self._record(self._name_file(reference))
        if record is None:
            return None
        image = record.image
        return image if all((self.layers / layer).is_dir() for layer in image.layers) else None

    def ensure(self, reference: str, policy: PullPolicy) -> None:
        """Make the image ready.

        Files are read again each time, as nothing else tells that they changed.
        """
        kind, _, path = reference.partition(":")
        if kind in ("dir", "host"):
            self.find(reference)
        elif kind in LOCAL_KINDS:
            self._load_file(reference, kind, path)
        elif reference in MADE_HERE:
            if self.find(reference) is None:
                with tar_files(MADE_HERE[reference](reference)) as files:
                    self._store(reference, files, describe_docker(files, ""))
        elif self.find(reference) is None or (policy is PullPolicy.ALWAYS and "@" not in reference):
            if policy is PullPolicy.NEVER:
                raise ImageError(
                    f"image {reference} is not on this node",
                    why="the policy `never` forbids to pull it",
                    fix="Use the policy `ifMissing`, or an image in a file (`oci-archive:/PATH`).",
                )
            self._pull(reference)

    def stop_pulls(self) -> None:
        """Have what is being pulled fail now."""
        self._skopeo.stop()

    def _load_file(self, reference: str, kind: str, path: str) -> None:
        file, _, tag = path.partition(":")
        found = self._allowed_path(reference, file)
        try:
            if kind == "oci":
                layout = FolderFiles(found)
                self._store(reference, layout, describe_oci(layout, tag))
                return
            with tar_files(found) as files:
                describe = describe_oci if kind == "oci-archive" else describe_docker
                self._store(reference, files, describe(files, tag))
        except (OSError, ValueError, KeyError, TypeError, tarfile.TarError) as broken:
            raise ImageError(
                f"cannot read image {reference}",
                why=f"it is no {kind} ({type(broken).__name__}: {broken})",
                fix="Make it for example with `skopeo copy docker://NAME oci:/PATH:TAG`.",
            ) from broken

    def _allowed_path(self, reference: str, path: str) -> Path:
        """Return the real path of an image in files, which must exist and lie where the node's operator allows it."""
        try:
            real = Path(os.path.realpath(path))
        except OSError:
            real = Path("/")  # a link that nobody may follow
        if not path.startswith("/") or not any(real.is_relative_to(os.path.realpath(top)) for top in self._allowed):
            raise ImageError(
                f"image {reference} may not be used",
                why=f"images in files must lie in {' or '.join(map(str, self._allowed)) or 'no folder'} on this node",
                fix="Move it there, or start the agent with `--image-dir FOLDER`.",
            )
        if not real.exists():
            raise ImageError(
                f"image {reference} is not on this node",
                why=f"there is no {path}",
                fix="Put it there, or keep the workload to nodes that have it (`placement.constraints`).",
            )
        return real

    def _host(self, reference: str) -> Image:
        if reference not in ("host:", "host:/"):
            raise ImageError(f"cannot read image {reference}", why="the host is one image", fix="Write `host:/`.")
        folders = [name for name in _HOST_FOLDERS if Path("/", name).is_dir()]
        links = {name: os.readlink(f"/{name}") for name in folders if Path("/", name).is_symlink()}
        with self._locks["host"]:
            for name, mode in _SKELETON.items():
                (self._skeleton / name).mkdir(parents=True, exist_ok=True)
                (self._skeleton / name).chmod(mode)
            for name, target in links.items():
                with suppress(FileExistsError):
                    (self._skeleton / name).symlink_to(target)
        etc = [f"/etc/{name}" for name in _HOST_ETC if Path("/etc", name).exists()]
        return Image((str(self._skeleton),), binds=(*(f"/{f}" for f in folders if f not in links), *etc))

    def pulling(self, reference: str) -> str:
        """Say how much of the image that is being pulled has arrived."""
        draft = self._drafts.get(reference)
        return pulling("", _size_below(draft), 0) if draft is not None else ""

    def digest(self, reference: str) -> str:
        """Return the digest that a registry had it by; "" for what came from none."""
        record = self._record(self._name_file(reference))
        return record.digest if record is not None else ""

    def records(self) -> list[Record]:
        """Return all names of images that are stored here."""
        found = (self._record(file) for file in self._names.glob("[!.]*.json"))
        return [record for record in found if record is not None]

    def forget(self, reference: str) -> None:
        """Remove the name; its layers stay."""
        self._name_file(reference).unlink(missing_ok=True)

    @staticmethod
    def _record(file: Path) -> Record | None:
        try:
            stored = json.loads(file.read_text())
        except FileNotFoundError:
            return None
        fields: Any = {name: tuple(v) if isinstance(v, list) else v for name, v in stored["image"].items()}
        return Record(stored["name"], stored.get("digest", ""), Image(**fields))

    def _pull(self, reference: str) -> None:
        access = self._registries.access(reference)
        draft = self._names / f".pull-{secrets.token_hex(4)}"
        draft.mkdir(parents=True)
        self._drafts[reference] = draft
        try:
            digest = self._skopeo.pull(reference, access, draft)
            layout, pinned = FolderFiles(draft), at_digest(reference, digest)
            for name in dict.fromkeys((reference, pinned)):
                self._store(name, layout, describe_oci(layout, TAG), digest)
        finally:
            self._drafts.pop(reference, None)
            shutil.rmtree(draft, ignore_errors=True)

    def _store(self, reference: str, files: Files, described: Described, digest: str = "") -> None:
        needed = Counter(map(_folder_of, described.layers))
        with self.guard:
            self.needed += needed
        try:
            for layer in described.layers:
                self._unpack(reference, files, layer)
            self._name(reference, described, digest)
        finally:
            with self.guard:
                self.needed -= needed

    def _name(self, reference: str, described: Described, digest: str) -> None:
        config = described.config
        image = Image(
            layers=tuple(_folder_of(layer) for layer in reversed(described.layers)),
            entrypoint=tuple(config.get("Entrypoint") or ()),
            command=tuple(config.get("Cmd") or ()),
            env=tuple(config.get("Env") or ()),
            working_dir=str(config.get("WorkingDir") or ""),
            user=str(config.get("User") or ""),
        )
        self._names.mkdir(parents=True, exist_ok=True)
        draft = self._names / f".{secrets.token_hex(4)}"
        draft.write_text(json.dumps({"name": reference, "digest": digest, "image": asdict(image)}))
        draft.replace(self._name_file(reference))

    def _unpack(self, reference: str, files: Files, layer: Layer) -> None:
        """Unpack the layer unless it is there already: whole, or not at all."""
        target = self.layers / _folder_of(layer)
        with self._locks[layer.sha256]:
            if target.is_dir():
                return
            draft = self.layers / f".{secrets.token_hex(8)}"
            draft.mkdir(parents=True, mode=0o755)
            try:
                with files.open(layer.file) as data:
                    sha256 = _unpacked(data, draft)
                if sha256 != layer.sha256:
                    raise ImageError(
                        f"cannot use image {reference}",
                        why=f"its layer {layer.sha256[:12]} is damaged: what was read has the digest {sha256[:12]}",
                        fix="Copy or pull the image again.",
                    )
                draft.rename(target)
            except BaseException:
                shutil.rmtree(draft, ignore_errors=True)
                raise

    def _name_file(self, reference: str) -> Path:
        return self._names / f"{hashlib.sha256(reference.encode()).hexdigest()[:32]}.json"


def _unpacked(data: BinaryIO, folder: Path) -> str:
    """Unpack an archive in a process whose root is the folder, and return the digest of what was read."""
    with subprocess.Popen(
        [sys.executable, "-I", "-S", oci_unpack.__file__, str(folder)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as process:
        assert process.stdin is not None
        with suppress(BrokenPipeError):
            shutil.copyfileobj(data, process.stdin, 1 << 20)
        out, error = process.communicate(timeout=PULL_TIMEOUT_S)
    if process.returncode != 0:
        raise ImageError(
            "cannot unpack a layer",
            why=error.decode(errors="replace").strip()[-500:],
            fix="Layers must be tar, plain or by gzip, bzip2 or xz; the disk must have room for them.",
        )
    return out.decode().strip()


def _size_below(folder: Path) -> int:
    """Return how many bytes there are in files below the folder, which may go at any time."""
    size = 0
    for top, _, names in os.walk(folder):
        for name in names:
            with suppress(OSError):
                size += Path(top, name).stat().st_size
    return size


def _folder_of(layer: Layer) -> str:
    """Return the name of the layer's folder: short, as those of all layers must fit in a page for mount(2)."""
    return layer.sha256[:24]
