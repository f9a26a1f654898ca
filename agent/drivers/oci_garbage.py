"""Which images the oci driver has, and their removal: first a name, then the layers that nothing else has. Blocks."""

import secrets
import shutil
from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path

from agent.driver import HeldImage
from agent.drivers.oci_folder import ContainerFolder
from agent.drivers.oci_images import Images, Record
from manifests.errors import ConflictError, NotFoundError

_TRASH = ".trash-"


def held_images(images: Images, containers: Sequence[ContainerFolder]) -> list[HeldImage]:
    """Return the images that were pulled; one that has several names once."""
    used, held = {folder.spec.image for folder in containers}, []
    for digest, records in _pulled(images).items():
        names = tuple(record.name for record in records)
        size_bytes = sum(_size(images.layers / layer) for layer in records[0].image.layers)
        held.append(HeldImage(digest, names, size_bytes, bool(used & set(names))))
    return held


def remove_image(images: Images, name: str, containers: Sequence[ContainerFolder]) -> None:
    """Take a name from an image, and remove the layers that have become nobody's. Raises as agent.driver says."""
    named = ({record.name for record in records} for records in _pulled(images).values())
    names = next((names for names in named if name in names), None)
    if names is None:
        raise NotFoundError(f"there is no image {name}")
    holder = next((folder for folder in containers if folder.spec.image in names), None)
    if holder is not None:
        raise ConflictError(f"cannot remove image {name}", why=f"container {holder.spec.name} has it")
    images.forget(name)
    _sweep(images, containers)


def _pulled(images: Images) -> dict[str, list[Record]]:
    """Return the names of each image that came from a registry, by its digest there."""
    named: dict[str, list[Record]] = {}
    for record in images.records():
        if record.digest:
            named.setdefault(record.digest, []).append(record)
    return named


def _sweep(images: Images, containers: Iterable[ContainerFolder]) -> None:
    """Remove the layers that no name has, no container, and no pull under way."""
    in_use: set[str] = set()
    for folder in containers:
        layers = folder.layers()
        if layers is None and folder.started.exists():
            return  # one of an older version, which doesn't say which layers it lies on
        in_use |= set(layers or ())
    with images.guard:
        in_use |= {layer for record in images.records() for layer in record.image.layers} | set(images.needed)
        for layer in images.layers.iterdir():
            if layer.name not in in_use and not layer.name.startswith("."):
                with suppress(FileNotFoundError):
                    layer.rename(layer.with_name(f"{_TRASH}{secrets.token_hex(8)}"))
    for trash in images.layers.glob(f"{_TRASH}*"):
        shutil.rmtree(trash, ignore_errors=True)


def _size(folder: Path) -> int:
    size = 0
    for path in folder.rglob("*"):
        with suppress(OSError):
            size += path.lstat().st_blocks * 512
    return size
