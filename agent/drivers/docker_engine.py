"""In what engines behind Docker's API differ: the one of Docker itself, and what any other must be able to say.

Which one it is turns out at the first call (agent.drivers.docker). Podman's is in agent.drivers.podman.
"""

from collections.abc import AsyncGenerator
from typing import Protocol

from agent.driver import Container, ContainerSpec, DriverInfo, LogChunk
from agent.drivers.docker_api import DockerApi
from agent.drivers.docker_codec import Json


class Engine(Protocol):
    @property
    def hints(self) -> list[str]:
        """The names of the events after which a container is worth a look."""
        ...

    async def info(self, version: Json) -> DriverInfo: ...

    async def check_create(self, spec: ContainerSpec, body: Json) -> Json:
        """Return the body of a create as this engine needs it. Raises WherryError for what it would get wrong."""
        ...

    async def start(self, container: str) -> None: ...

    async def remove(self, container: str) -> None: ...

    def completed(self, container: Container) -> Container:
        """Return the container with what the engine's own answer leaves out."""
        ...

    def logs(
        self, container: str, *, follow: bool, tail: int | None, timed: bool, since: str
    ) -> AsyncGenerator[LogChunk, None]: ...

    def close(self) -> None: ...


class DockerEngine:
    """Docker's own, from which the driver's words come: nothing is added."""

    # Not exec_*: health checks make three of them each.
    hints = ["start", "die", "oom", "pause", "unpause", "destroy"]  # noqa: RUF012

    def __init__(self, api: DockerApi) -> None:
        self._api = api

    async def info(self, version: Json) -> DriverInfo:
        info = await self._api.info()
        attributes = {
            **common_attributes(version, info),
            "runtimes": ",".join(sorted(info["Runtimes"])),
            "live-restore": str(info["LiveRestoreEnabled"]).lower(),
        }
        return DriverInfo("docker", str(version["Version"]), attributes)

    async def check_create(self, spec: ContainerSpec, body: Json) -> Json:
        return body

    async def start(self, container: str) -> None:
        await self._api.start(container)

    async def remove(self, container: str) -> None:
        await self._api.remove(container)

    def completed(self, container: Container) -> Container:
        return container

    def logs(
        self, container: str, *, follow: bool, tail: int | None, timed: bool, since: str
    ) -> AsyncGenerator[LogChunk, None]:
        return self._api.logs(container, follow=follow, tail=tail, timed=timed, since=since)

    def close(self) -> None:
        pass


def common_attributes(version: Json, info: Json) -> dict[str, str]:
    return {
        "api.version": str(version["ApiVersion"]),
        "cgroup.version": str(info.get("CgroupVersion", "1")),
        "cgroup.driver": str(info["CgroupDriver"]),
        "storage": str(info["Driver"]),
    }
