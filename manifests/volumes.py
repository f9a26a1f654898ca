"""Volumes: what outlives a container. A workload says what it has, its containers where they see it."""

from typing import Annotated, Self

from pydantic import AfterValidator, Field, model_validator

from manifests.base import Flag, Model, Name
from manifests.isolation import Place


def _checked_host_path(path: str) -> str:
    parts = path.split("/")
    if path == "/" or ".." in parts or "." in parts or "" in parts[1:]:
        raise ValueError(f"'{path}' must be an absolute path without '.', '..', '//' and a '/' at its end")
    return path


HostPath = Annotated[
    str,
    Field(pattern=r"^/[!-+\--~]{0,1023}\z", description="an absolute path without spaces and commas"),
    AfterValidator(_checked_host_path),
]
VolumeName = Annotated[
    str,
    Field(pattern=r"^[a-z0-9](?:[-a-z0-9]{0,46}[a-z0-9])?\z", description="up to 48 of a-z, 0-9 and '-'"),
]


class VolumeSpec(Model):
    """Exactly one of: `named`, kept on the node where it was first used; `host`, a path that its operator allows."""

    name: Name
    named: VolumeName | None = None
    host: HostPath | None = None

    @model_validator(mode="after")
    def _is_of_one_kind(self) -> Self:
        if (self.named is None) == (self.host is None):
            raise ValueError("is exactly one of named (kept on its node) and host (a path of the node)")
        return self


class MountSpec(Model):
    """Where a container sees a volume of its workload."""

    volume: Name
    path: Place
    read_only: Flag = False


def volume_id(namespace: str, named: str, index: int | None) -> str:
    """Return what a named volume is called on its node. Each index has its own; a Daemon (None) has one on each node.

    >>> volume_id("default", "db", 0), volume_id("default", "cache", None)
    ('default/db-0', 'default/cache')
    """
    return f"{namespace}/{named}" if index is None else f"{namespace}/{named}-{index}"
