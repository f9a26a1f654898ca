"""A container and its image as Docker or Podman tells of them, and the `docker` command that shows each fact. Pure."""

from collections.abc import Iterator
from shlex import quote
from typing import Any, TypeAlias

from agent.drivers.docker_api import DEFAULT_SOCKET
from manifests.layers import Fact, Layer, LayerKind

Json: TypeAlias = dict[str, Any]
_FACTS = (  # name in `docker inspect`, in words
    ("Id", "what the engine calls it"),
    ("Name", ""),
    ("State.Status", ""),
    ("State.Pid", "its first process, on the host"),
    ("State.StartedAt", ""),
    ("Config.Image", ""),
    ("HostConfig.Runtime", "the OCI runtime, by its name in daemon.json"),
    ("HostConfig.NetworkMode", ""),
    ("HostConfig.CgroupParent", ""),
    ("HostConfig.Memory", "bytes, asked of the runtime"),
    ("HostConfig.CpuQuota", "microseconds in each CpuPeriod"),
    ("HostConfig.PidsLimit", ""),
    ("LogPath", "what it writes, a JSON object a line"),
)
_STORAGE = ("UpperDir", "MergedDir", "WorkDir")


def container_layer(inspected: Json, image: Json, *, socket: str) -> Layer:
    docker = "docker" if socket == DEFAULT_SOCKET else f"docker -H {quote(f'unix://{socket}')}"
    id_ = str(inspected["Id"])
    facts = [
        Fact(name=name, value=value, note=note, command=f"{docker} inspect --format '{{{{.{name}}}}}' {id_}")
        for name, note in _FACTS
        if (value := _at(inspected, name))
    ]
    facts += [
        Fact(
            name=f"Networks.{network}.IPAddress",
            value=str(found["IPAddress"]),
            command=f"{docker} inspect --format '{{{{.NetworkSettings.Networks.{network}.IPAddress}}}}' {id_}",
        )
        for network, found in ((inspected.get("NetworkSettings") or {}).get("Networks") or {}).items()
        if found.get("IPAddress") and network.isalnum()
    ]
    return Layer(
        kind=LayerKind.CONTAINER,
        name=str(inspected.get("Name") or id_).removeprefix("/"),
        command=f"{docker} inspect {id_}",
        facts=tuple(facts),
        below=(_image_layer(inspected, image, docker=docker),),
    )


def _image_layer(inspected: Json, image: Json, *, docker: str) -> Layer:
    image_id, id_ = str(inspected.get("Image") or ""), str(inspected["Id"])
    show = f"{docker} image inspect --format"
    facts = [
        Fact(
            name="Id",
            value=image_id,
            note="the digest of its configuration",
            command=f"{show} '{{{{.Id}}}}' {image_id}",
        )
    ]
    facts += [
        Fact(name="RepoDigest", value=str(digest), command=f"{show} '{{{{.RepoDigests}}}}' {image_id}")
        for digest in image.get("RepoDigests") or []
    ]
    layers = (image.get("RootFS") or {}).get("Layers") or []
    facts += [
        Fact(
            name=f"layer {number} of {len(layers)}",
            value=str(digest),
            note="the lowest" if number == 1 < len(layers) else "",
            command=f"{show} '{{{{index .RootFS.Layers {number - 1}}}}}' {image_id}",
        )
        for number, digest in enumerate(layers, 1)
    ]
    facts += _storage(inspected, f"{docker} inspect --format", id_)
    name = str((inspected.get("Config") or {}).get("Image") or image_id)
    return Layer(kind=LayerKind.IMAGE, name=name, command=f"{docker} image inspect {image_id}", facts=tuple(facts))


def _storage(inspected: Json, show: str, id_: str) -> Iterator[Fact]:
    """Yield where the storage driver keeps what is laid over one another."""
    driver = inspected.get("GraphDriver") or {}
    data = driver.get("Data") or {}
    if driver.get("Name"):
        yield Fact(
            name="GraphDriver.Name", value=str(driver["Name"]), command=f"{show} '{{{{.GraphDriver.Name}}}}' {id_}"
        )
    for number, folder in enumerate(reversed(str(data.get("LowerDir") or "").split(":")), 1):
        if folder:
            command = f"{show} '{{{{.GraphDriver.Data.LowerDir}}}}' {id_}"
            yield Fact(name=f"LowerDir {number}", value=folder, note="read only", command=command)
    for name in _STORAGE:
        if data.get(name):
            note = {"UpperDir": "what the container has written", "MergedDir": "what it sees as /"}.get(name, "")
            yield Fact(
                name=name, value=str(data[name]), note=note, command=f"{show} '{{{{.GraphDriver.Data.{name}}}}}' {id_}"
            )


def _at(found: Json, path: str) -> str:
    value: Any = found
    for part in path.split("."):
        value = value.get(part) if isinstance(value, dict) else None
    return "" if value is None or value == 0 else str(value)
