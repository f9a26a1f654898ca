"""Podman's engine: what it does otherwise than Docker behind the same API, found with Podman 4.3, and set right here.

- An image's own health check never runs, and there is no /update: Wherry uses neither.
- A container starts those whose network it shares, and one that others depend on isn't removed without them.
- A container in another's network has a hostname of its own unless told otherwise.
- A capability that is added goes to any user, not to root alone.
- Where any ulimit is given, or the service may not raise its own, both `nofile` and `nproc` must be.
- The source of a bind mount is made if it is missing.
- It never says that the kernel killed for memory, nor, later on, why a start failed.
- Logs come with whole seconds; the files, which the agent reads itself, have nanoseconds.
"""

import asyncio
import os
import resource
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import replace
from pathlib import Path
from typing import Any

from agent.driver import Container, ContainerSpec, ContainerState, DriverInfo, LogChunk
from agent.drivers.docker_api import DockerApi
from agent.drivers.docker_codec import JOINED, Json, to_container
from agent.drivers.docker_engine import common_attributes
from agent.drivers.log_files import read_log
from agent.drivers.oom_watch import OomWatch
from agent.drivers.spec_checks import check_mounts
from foundation.clock import Clock
from manifests.errors import ConflictError, DriverError, NotFoundError, UnavailableError
from manifests.permissions import BASE_CAPABILITIES

MOST_FILES = 1_048_576  # as Docker's packages set it
MOST_PROCESSES = 32_768  # to which Podman lowers its own limit; `pids` is what limits a container
REMOVE_TRIES, REMOVE_PAUSE_S = 20, 0.1
# What it gives by default: containers.conf(5), default_capabilities.
_CAPABILITIES = frozenset(
    (
        *("CHOWN", "DAC_OVERRIDE", "FOWNER", "FSETID", "KILL", "NET_BIND_SERVICE", "SETFCAP", "SETGID", "SETPCAP"),
        *("SETUID", "SYS_CHROOT"),
    )
)
_LOCAL = "localhost/"  # before the names of images without a registry
_NAME = "Podman Engine"


def is_podman(version: Json) -> bool:
    """Say whether Podman gave this answer to `GET /version`."""
    return any(part.get("Name") == _NAME for part in version.get("Components") or ())


class PodmanEngine:
    """Implements agent.drivers.docker_engine.Engine. `close` it."""

    hints = ["start", "died", "remove", "pause", "unpause"]  # noqa: RUF012

    def __init__(self, api: DockerApi, clock: Clock) -> None:
        self._api, self._clock = api, clock
        self._kills = OomWatch()
        self._failures: dict[str, str] = {}  # why a start failed, by container

    def close(self) -> None:
        self._kills.close()

    async def info(self, version: Json) -> DriverInfo:
        info = await self._api.info()
        # It names every runtime of which it has heard.
        found = await asyncio.to_thread(_present, info["Runtimes"])
        attributes = {
            **common_attributes(version, info),
            "runtimes": ",".join(found),
            "live-restore": "true",  # each container has a conmon, which needs no service
        }
        return DriverInfo("podman", str(version["Version"]), attributes)

    async def check_create(self, spec: ContainerSpec, body: Json) -> Json:
        await asyncio.to_thread(check_mounts, spec)  # Podman would make an empty folder
        usual = {"nofile": _ulimit("nofile", MOST_FILES), "nproc": _ulimit("nproc", MOST_PROCESSES)}
        given = {ulimit["Name"]: ulimit for ulimit in body["HostConfig"].get("Ulimits", ())}
        config = {**body["HostConfig"], "Ulimits": list((usual | given).values())}
        if spec.isolation.capabilities is not None:
            config |= _capabilities(frozenset(spec.isolation.capabilities))
        if spec.network_of is not None:
            config["UTSMode"] = f"{JOINED}{spec.network_of}"
        return {**body, "HostConfig": config}

    async def start(self, container: str) -> None:
        """Start it in two steps: between them it has a process, which can be watched, and hasn't run yet."""
        inspected = await self._api.inspect(container)
        found = to_container(inspected)
        if found.state is ContainerState.RUNNING:
            return
        if found.network_of:
            await self._check_holder(found)
        try:
            await self._api.init(container)
            prepared = await self._api.inspect(container)
            self._kills.watch(container, int(prepared["State"]["Pid"]))
            await self._api.start(container)
        except DriverError as refused:
            self._failures[container] = refused.why
            raise
        self._failures.pop(container, None)

    async def _check_holder(self, container: Container) -> None:
        try:
            holder = to_container(await self._api.inspect(container.network_of))
        except NotFoundError:
            holder = None
        if holder is None or holder.state is not ContainerState.RUNNING:
            raise UnavailableError(
                f"cannot start container {container.name} now",
                why=f"container {container.network_of[:12]}, whose network it shares, doesn't run",
                fix="The container that holds its network ended: it is made anew, and then this one.",
            )

    async def remove(self, container: str) -> None:
        """Remove it, and those in its network with it.

        While one of these goes by another call, Podman refuses as if this one were not there, or were going itself.
        """
        self._kills.forget(container)
        self._failures.pop(container, None)
        for again in (True,) * REMOVE_TRIES + (False,):
            try:
                await self._api.remove_with_dependents(container)
                return
            except (NotFoundError, ConflictError):
                if not again or await self._is_gone(container):
                    raise
                await self._clock.sleep(REMOVE_PAUSE_S)

    async def _is_gone(self, container: str) -> bool:
        try:
            await self._api.inspect(container)
        except NotFoundError:
            return True
        return False

    def completed(self, container: Container) -> Container:
        if container.state is ContainerState.RUNNING:
            self._kills.watch(container.id, container.pid)  # of an earlier agent
        return replace(
            container,
            image=container.image.removeprefix(_LOCAL),
            oom_killed=container.oom_killed or self._kills.was_killed(container.id),
            error=container.error or self._failures.get(container.id, ""),
            address="" if container.network_of else container.address,  # it tells the holder's
        )

    async def logs(
        self, container: str, *, follow: bool, tail: int | None, timed: bool, since: str
    ) -> AsyncGenerator[LogChunk, None]:
        inspected = await self._api.inspect(container)
        path = str(inspected.get("LogPath") or "")
        if not path:
            raise DriverError(
                f"cannot read the logs of container {container[:12]}",
                why="Podman keeps them in no file",
                fix="Was the container created by someone else? Read them with `podman logs`.",
            )

        async def has_ended() -> bool:
            try:
                return to_container(await self._api.inspect(container)).state is ContainerState.EXITED
            except NotFoundError:
                return True

        reader = read_log(
            Path(path),
            clock=self._clock,
            has_ended=has_ended if follow else None,
            tail=tail,
            timed=timed,
            since=since,
        )
        async with aclosing(reader) as chunks:
            async for chunk in chunks:
                yield chunk


def _capabilities(wanted: frozenset[str]) -> Json:
    """Name what goes of its own, and what is added; some distributions have it give more of the usual ones."""
    dropped = sorted(frozenset(BASE_CAPABILITIES) - wanted)
    return {"CapDrop": ["NET_RAW", *dropped], "CapAdd": sorted(wanted - _CAPABILITIES)}


def _ulimit(name: str, most: int) -> Json:
    """Return the highest limit that the agent may have itself, and with it, most likely, Podman's service."""
    kind = {"nofile": resource.RLIMIT_NOFILE, "nproc": resource.RLIMIT_NPROC}[name]
    own = resource.getrlimit(kind)[1]
    value = most if own == resource.RLIM_INFINITY else min(own, most)
    return {"Name": name, "Soft": value, "Hard": value}


def _present(runtimes: dict[str, Any]) -> list[str]:
    return sorted(name for name, runtime in runtimes.items() if os.access(runtime.get("path", ""), os.X_OK))
