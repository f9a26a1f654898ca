"""The Docker Engine of one host, and what really runs in it, asked of the engine itself and not of Wherry."""

import asyncio
import contextlib
import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import aiohttp

from tests.lab.commands import LabError
from tests.lab.processes import Process
from tests.lab.waiting import wait_until

if TYPE_CHECKING:
    from tests.lab.host import Host

API = "http://docker/v1.41"
UP_S = 60.0
CALL_S = 20.0


class GoneError(LabError):
    """The engine doesn't know what it was asked for."""


@dataclass(frozen=True, slots=True)
class RunContainer:
    """A container as the engine sees it, running or not. The same `id`, `pid` and `started_at` mean: not restarted."""

    id: str
    name: str
    labels: Mapping[str, str]
    state: str
    pid: int
    started_at: str
    exit_code: int

    @property
    def is_running(self) -> bool:
        return self.state == "running"


class Dockerd:
    """One engine with its own data, sockets and bridge addresses; containers outlive it, as live-restore is on."""

    def __init__(self, host: "Host") -> None:
        self._host = host
        self.folder = host.folder / "docker"
        self.socket = self.folder / "docker.sock"
        self._run_folder = self.folder / "run"

    @property
    def url(self) -> str:
        return f"unix://{self.socket}"

    @property
    def process(self) -> Process:
        return self._host.processes["dockerd"]

    async def start(self) -> None:
        """Start it and return when it answers."""
        self.folder.mkdir(parents=True, exist_ok=True)
        # A pid in there may by now be another process's: dockerd would refuse to start, or wait 40 s for containerd.
        for stale in (self.folder / "pid", self._run_folder / "containerd" / "containerd.pid"):
            stale.unlink(missing_ok=True)
        config = {"live-restore": True, "exec-opts": ["native.cgroupdriver=cgroupfs"]}
        (self.folder / "daemon.json").write_text(json.dumps(config))
        self._host.run("dockerd", *self._command())
        await wait_until(self._answers, UP_S, f"dockerd of {self._host.name} answers")

    async def stop(self) -> None:
        """End it politely. Its containers go on."""
        await self.process.terminate()

    async def kill(self) -> None:
        """Kill -9 it, and with it its containerd, which the kernel then kills too. Its containers go on."""
        await self.process.kill()
        await wait_until(self._containerd_is_gone, UP_S, f"containerd of {self._host.name} is gone")

    async def restart(self, *, politely: bool = True) -> None:
        if politely:
            await self.stop()
        else:
            await self.kill()
        await self.start()

    async def call(self, method: str, path: str, *, body: object = None) -> Any:
        """Return the engine's JSON answer, or its text where that isn't JSON; LabError for an error status."""
        timeout = aiohttp.ClientTimeout(total=CALL_S)
        connector = aiohttp.UnixConnector(str(self.socket))
        async with (
            aiohttp.ClientSession(connector=connector, timeout=timeout) as session,
            session.request(method, f"{API}{path}", json=body) as response,
        ):
            text = await response.text()
            if response.status == 404:
                raise GoneError(f"{method} {path} on {self._host.name}: {text}")
            if response.status >= 400:
                raise LabError(f"{method} {path} on {self._host.name}: {response.status} {text}")
            return json.loads(text) if response.content_type == "application/json" and text else text

    def forget_run(self) -> None:
        """Remove what a machine loses with its power: the state of running containers, sockets, pid files."""
        shutil.rmtree(self._run_folder, ignore_errors=True)
        self.socket.unlink(missing_ok=True)

    def _command(self) -> tuple[str, ...]:
        return (
            "dockerd",
            *("--data-root", str(self.folder / "data")),
            *("--exec-root", str(self._run_folder)),
            *("--pidfile", str(self.folder / "pid")),
            *("--config-file", str(self.folder / "daemon.json")),
            *("--host", self.url),
            *("--bip", f"10.244.{self._host.port}.1/24"),
            *("--cgroup-parent", self._host.work.path),
        )

    async def _answers(self) -> bool:
        if not self.process.is_alive:
            raise LabError(f"dockerd of {self._host.name} ended:\n{self.process.log_tail()}")
        return bool(await self.call("GET", "/_ping") == "OK")

    async def _containerd_is_gone(self) -> bool:
        """Tell by the connection that it refuses: after kill -9 the socket's file is still there."""
        try:
            _, writer = await asyncio.open_unix_connection(self._run_folder / "containerd" / "containerd.sock")
        except OSError:
            return True
        writer.close()
        await writer.wait_closed()
        return False


async def containers(host: "Host") -> tuple[RunContainer, ...]:
    """Return every container of the host's engine, also those that have ended, in the order of their names."""
    found: list[RunContainer] = []
    for entry in await host.dockerd.call("GET", "/containers/json?all=1"):
        with contextlib.suppress(GoneError):  # removed since
            found.append(_run_container(await host.dockerd.call("GET", f"/containers/{entry['Id']}/json")))
    return tuple(sorted(found, key=lambda container: container.name))


async def running(host: "Host") -> tuple[RunContainer, ...]:
    return tuple(container for container in await containers(host) if container.is_running)


async def run_container(host: "Host", name: str, *command: str, labels: Mapping[str, str] | None = None) -> str:
    """Start a container of the busybox image behind Wherry's back, and return its id."""
    body = {"Image": "wherry/busybox:1", "Cmd": command, "Labels": dict(labels or {})}
    created = await host.dockerd.call("POST", f"/containers/create?name={name}", body=body)
    await host.dockerd.call("POST", f"/containers/{created['Id']}/start")
    return str(created["Id"])


def _run_container(found: Mapping[str, Any]) -> RunContainer:
    state = found["State"]
    return RunContainer(
        id=found["Id"],
        name=found["Name"].lstrip("/"),
        labels=found["Config"]["Labels"] or {},
        state=state["Status"],
        pid=state["Pid"],
        started_at=state["StartedAt"],
        exit_code=state["ExitCode"],
    )
