"""A container of the oci driver, with its image, bundle and runtime: files, and the commands that show them."""

from pathlib import Path
from shlex import quote

from agent.bundle_facts import bundle_layer, runtime_layer
from agent.driver import ImageError
from agent.drivers.oci_folder import ContainerFolder
from agent.drivers.oci_images import Images
from agent.drivers.oci_runtime import Runtime
from manifests.errors import NotFoundError
from manifests.layers import Fact, Layer, LayerKind


def container_layer(folder: ContainerFolder, runtime: Runtime, images: Images) -> Layer:
    """Return the container, as its folder has it. Raises NotFoundError if it is gone."""
    if not folder.path.is_dir():
        raise NotFoundError(f"there is no container {folder.id[:12]}")
    found = folder.look()
    path = quote(str(folder.path))
    facts = [
        Fact(name="id", value=folder.id, note="the SHA-256 of its name", command=f"ls -d {path}"),
        Fact(name="name", value=folder.spec.name, command=f"cat {path}/spec.json"),
        Fact(name="image", value=folder.spec.image, command=f"cat {path}/spec.json"),
        Fact(name="pid", value=str(found.pid), note="its first process, on the host", command=f"cat {path}/pid"),
        Fact(
            name="log",
            value=str(folder.log),
            note="what it writes, a line each",
            command=f"ls {quote(str(folder.log))}",
        ),
    ]
    if found.address:
        facts.append(Fact(name="address", value=found.address, command=f"cat {path}/network.json"))
    bundle = bundle_layer(folder.path)
    made_by = f"{runtime.version}, {runtime.path}"
    made = runtime_layer(runtime.name, runtime.command("state", folder.id), pid=found.pid, note=made_by)
    below = [_image_layer(folder, images, found.pid), *([bundle] if bundle else []), made]
    return Layer(
        kind=LayerKind.CONTAINER, name=folder.spec.name, command=f"ls -l {path}", facts=tuple(facts), below=tuple(below)
    )


def _image_layer(folder: ContainerFolder, images: Images, pid: int) -> Layer:
    try:
        image = images.find(folder.spec.image)
    except ImageError:
        image = None  # it was moved away while it runs
    paths = [str(Path(images.layers, layer)) for layer in reversed(image.layers)] if image is not None else []
    facts = [
        _folder(f"layer {number} of {len(paths)}", path, "the lowest" if number == 1 < len(paths) else "")
        for number, path in enumerate(paths, 1)
    ]
    facts += [_folder("of the host", bind, "read only") for bind in (image.binds if image is not None else ())]
    facts.append(_folder("upper", str(folder.path / "upper"), "what the container has written"))
    facts.append(_folder("merged", str(folder.path / "merged"), "what it sees as /"))
    mounted = f"grep ' / / ' /proc/{pid}/mountinfo" if pid else ""  # the host's own tables don't have the mount
    return Layer(kind=LayerKind.IMAGE, name=folder.spec.image, command=mounted, facts=tuple(facts))


def _folder(name: str, path: str, note: str) -> Fact:
    return Fact(name=name, value=path, note=note, command=f"ls -d {quote(path)}")
