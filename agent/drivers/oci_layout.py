"""Reads images from files: OCI layouts (a folder or a tar of one) and archives of `docker save`. Unpacks nothing.

Sources: the OCI image specification (image-layout.md, manifest.md, config.md); Docker's image specification, v1.2.
"""

import io
import json
import re
import tarfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Protocol, TypeAlias

from agent.driver import ImageError
from agent.drivers.local_image import architecture

Json: TypeAlias = dict[str, Any]
MOST_JSON_BYTES = 4 << 20
_DIGEST = re.compile(r"sha256:([0-9a-f]{64})")
_REF = "org.opencontainers.image.ref.name"


class Files(Protocol):
    """Named files, of a folder or an archive."""

    def open(self, name: str) -> BinaryIO: ...


@dataclass(frozen=True, slots=True)
class Layer:
    """One layer: the file that has it, and the SHA-256 of that file, in hexadecimal."""

    file: str
    sha256: str


@dataclass(frozen=True, slots=True)
class Described:
    """What an image is made of, the lowest layer first, and what it says of how to run it."""

    layers: tuple[Layer, ...]
    config: Json


class FolderFiles:
    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def open(self, name: str) -> BinaryIO:
        return (self._folder / name).open("rb")


class TarFiles:
    def __init__(self, archive: tarfile.TarFile) -> None:
        self._archive = archive

    def open(self, name: str) -> BinaryIO:
        for spelling in (name, f"./{name}"):
            try:
                file = self._archive.extractfile(spelling)
            except KeyError:
                continue
            if file is not None:
                return file  # type: ignore[return-value]  # it is read, and that only
        raise FileNotFoundError(2, "the archive has no such file", name)


@contextmanager
def tar_files(source: Path | bytes) -> Iterator[Files]:
    """Open an archive, compressed or not."""
    stream = io.BytesIO(source) if isinstance(source, bytes) else source.open("rb")
    with stream, tarfile.open(fileobj=stream, mode="r:*") as archive:
        yield TarFiles(archive)


def describe_oci(files: Files, tag: str) -> Described:
    """Return the image of that tag, or the only one. Raises ImageError, OSError, ValueError or KeyError."""
    manifest = _manifest(files, _json(files, "index.json")["manifests"], tag)
    config = _json(files, _blob(manifest["config"]))
    layers = [Layer(_blob(layer), _hex(layer["digest"])) for layer in manifest["layers"]]
    return Described(tuple(layers), config.get("config") or {})


def describe_docker(files: Files, name: str) -> Described:
    """Return the image of that name, or the only one. Raises as describe_oci does."""
    listed = json.loads(_read(files, "manifest.json"))
    named = [one for one in listed if name in (one.get("RepoTags") or ())] if name else listed
    if len(named) != 1:
        there = [tag for one in listed for tag in one.get("RepoTags") or ()]
        raise _ambiguous(name, there)
    config = _json(files, named[0]["Config"])
    pairs = zip(named[0]["Layers"], config["rootfs"]["diff_ids"], strict=True)
    return Described(tuple(Layer(file, _hex(digest)) for file, digest in pairs), config.get("config") or {})


def _manifest(files: Files, listed: Sequence[Json], tag: str) -> Json:
    """Return the manifest of that tag; of a list of one for each platform, this machine's."""
    if tag:
        listed = [one for one in listed if (one.get("annotations") or {}).get(_REF) == tag] or listed[:0]
    here = [one for one in listed if (one.get("platform") or {}).get("architecture", architecture()) == architecture()]
    if len(here) != 1:
        raise _ambiguous(tag, [str((one.get("annotations") or {}).get(_REF, "(no tag)")) for one in listed])
    found = _json(files, _blob(here[0]))
    return _manifest(files, found["manifests"], "") if "manifests" in found else found


def _ambiguous(tag: str, there: Sequence[str]) -> ImageError:
    asked = f"no image {tag}" if tag else f"{len(there)} images for {architecture()} and none was named"
    return ImageError(
        "cannot read the image",
        why=f"it holds {asked}; there {'is' if len(there) == 1 else 'are'} {', '.join(there) or 'none'}",
        fix="Name one after a colon, such as oci:/srv/images/web:1.0.",
    )


def _blob(descriptor: Json) -> str:
    return f"blobs/sha256/{_hex(descriptor['digest'])}"


def _hex(digest: str) -> str:
    match = _DIGEST.fullmatch(digest)
    if match is None:
        raise ValueError(f"'{digest}' is no digest by SHA-256")
    return match.group(1)


def _json(files: Files, name: str) -> Json:
    value = json.loads(_read(files, name))
    if not isinstance(value, dict):
        raise ValueError(f"{name} holds no object")
    return value


def _read(files: Files, name: str) -> bytes:
    with files.open(name) as file:
        data = file.read(MOST_JSON_BYTES + 1)
    if len(data) > MOST_JSON_BYTES:
        raise ValueError(f"{name} has over {MOST_JSON_BYTES} bytes")
    return data
