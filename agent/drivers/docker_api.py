"""The calls of the Docker Engine's API (1.41 and later) that the driver needs, each bounded in time.

Errors are those of agent.drivers.docker_http. Knows nothing of specs and containers: that is agent.drivers.docker.
"""

import asyncio
import json
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from pathlib import Path

from agent.driver import ExecSpec, ImageError, LogChunk
from agent.drivers.docker_codec import Frames, Json, to_auth_header, to_unix_time, with_tag
from agent.drivers.docker_http import Call, DockerHttp, StalledError
from agent.drivers.pull_progress import PullProgress
from agent.drivers.pull_words import pull_failure
from agent.registries import Access
from manifests.errors import DriverError, NotFoundError

LIBPOD = "/v4.0.0/libpod"  # before the calls that only Podman has
DEFAULT_SOCKET = "/var/run/docker.sock"
CALL_TIMEOUT_S = 10.0
SLOW_FACTOR = 3  # for starting and removing: a first start on an emulated host was seen to take 14 s
PULL_IDLE_S = 120.0  # without a line of progress; unpacking one large layer is silent for a while


class DockerApi:
    """One dockerd, by the path of its socket. Connects at the first call; safe for concurrent calls."""

    def __init__(
        self,
        socket: str | Path = DEFAULT_SOCKET,
        *,
        timeout_s: float = CALL_TIMEOUT_S,
        pull_idle_s: float = PULL_IDLE_S,
    ) -> None:
        self.pull_idle_s = pull_idle_s
        self._slow_s = SLOW_FACTOR * timeout_s
        self._http = DockerHttp(str(socket), timeout_s=timeout_s)

    async def close(self) -> None:
        await self._http.close()

    async def version(self) -> Json:
        return await self._http.object(Call("ask for docker's version", "GET", "/version", prefix=""))

    async def info(self) -> Json:
        return await self._http.object(Call("ask for docker's settings", "GET", "/info"))

    async def image(self, image: str) -> Json | None:
        try:
            return await self._http.object(Call(f"look for image {image}", "GET", f"/images/{with_tag(image)}/json"))
        except NotFoundError:
            return None

    async def pull(self, image: str, access: Access, progress: PullProgress) -> None:
        """Pull the image; raises ImageError with the registry's reason, or when progress stops for too long.

        Docker reports errors by the status before the first progress, and inside the stream after it.
        """
        params, headers = {"fromImage": with_tag(image)}, to_auth_header(access)
        call = Call(f"pull image {image}", "POST", "/images/create", params, headers=headers)
        idle_s = self.pull_idle_s
        try:
            async with aclosing(self._http.objects(call, first_s=idle_s, idle_s=idle_s)) as lines:
                async for line in lines:
                    progress.take(line)
                    if "error" in line:
                        raise pull_failure("docker", image, access, str(line["error"]))
        except StalledError as stalled:
            raise ImageError(
                f"cannot pull image {image}",
                why=f"no progress for {idle_s:g} s",
                fix="Check the registry and the node's network; docker keeps the layers that it has.",
            ) from stalled
        except ImageError:
            raise
        except (NotFoundError, DriverError) as failed:
            raise pull_failure("docker", image, access, failed.why) from failed

    async def list_images(self) -> list[Json]:
        return list(json.loads(await self._http.read(Call("list images", "GET", "/images/json"))))

    async def list_used_images(self) -> set[str]:
        """Return the ids of the images that containers have, whoever's they are."""
        params = {"all": "true"}
        listed = json.loads(await self._http.read(Call("list containers", "GET", "/containers/json", params)))
        return {str(container["ImageID"]) for container in listed}

    async def remove_image(self, image: str) -> None:
        call = Call(f"remove image {image}", "DELETE", f"/images/{image}")
        await self._http.read(call, timeout_s=self._slow_s)

    async def load(self, archive: bytes) -> None:
        """Add the images of an archive in the format of `docker save`."""
        call = Call("load images", "POST", "/images/load", data=archive)
        for line in (await self._http.read(call, timeout_s=self.pull_idle_s)).splitlines():
            if "error" in (answer := json.loads(line)):
                raise DriverError("cannot load images", why=str(answer["error"]), fix="Is it a `docker save` archive?")

    async def create(self, name: str, body: Json) -> str:
        """Create a container and return its id; ConflictError when the name is taken, NotFoundError without image."""
        call = Call(f"create container {name}", "POST", "/containers/create", {"name": name}, body)
        return str((await self._http.object(call))["Id"])

    async def start(self, container: str) -> None:
        call = Call(f"start container {container}", "POST", f"/containers/{container}/start")
        await self._http.read(call, timeout_s=self._slow_s)

    async def kill(self, container: str, signal: str) -> None:
        what = f"send {signal} to container {container}"
        await self._http.read(Call(what, "POST", f"/containers/{container}/kill", {"signal": signal}))

    async def wait(self, container: str, *, timeout_s: float) -> bool:
        """Return whether the container has ended within that time."""
        call = Call(f"wait for container {container}", "POST", f"/containers/{container}/wait")
        try:
            async with (
                asyncio.timeout(timeout_s),
                aclosing(self._http.chunks(call)) as chunks,  # the headers come at once, the body when it has ended
            ):
                async for _ in chunks:
                    pass
        except TimeoutError:
            return False
        return True

    async def remove(self, container: str) -> None:
        """Remove the container, killing it first if it runs, and its anonymous volumes."""
        params = {"force": "true", "v": "true"}
        call = Call(f"remove container {container}", "DELETE", f"/containers/{container}", params)
        await self._http.read(call, timeout_s=self._slow_s)

    async def init(self, container: str) -> None:
        """Make the container's process, which waits for its start. Only Podman has this and the next."""
        call = Call(f"prepare container {container}", "POST", f"/containers/{container}/init", prefix=LIBPOD)
        await self._http.read(call, timeout_s=self._slow_s)

    async def remove_with_dependents(self, container: str) -> None:
        params = {"force": "true", "v": "true", "depend": "true"}
        call = Call(f"remove container {container}", "DELETE", f"/containers/{container}", params, prefix=LIBPOD)
        for removed in json.loads(await self._http.read(call, timeout_s=self._slow_s) or b"[]"):
            if failure := removed.get("Err"):
                raise DriverError(f"cannot {call.what}", why=str(failure), fix="See Podman's own words.")

    async def inspect(self, container: str) -> Json:
        return await self._http.object(Call(f"inspect container {container}", "GET", f"/containers/{container}/json"))

    async def list_ids(self, labels: Mapping[str, str]) -> list[str]:
        params = {"all": "true", "filters": json.dumps({"label": _pairs(labels)})}
        listed = json.loads(await self._http.read(Call("list containers", "GET", "/containers/json", params)))
        return [str(container["Id"]) for container in listed]

    async def events(self, labels: Mapping[str, str], actions: list[str], since_s: float) -> AsyncGenerator[Json, None]:
        """Yield the events of containers with these labels from that time on, until dockerd goes away."""
        filters = {"type": ["container"], "event": actions, "label": _pairs(labels)}
        params = {"since": f"{since_s:.9f}", "filters": json.dumps(filters)}
        async with aclosing(self._http.objects(Call("follow docker's events", "GET", "/events", params))) as lines:
            async for line in lines:
                yield line

    async def logs(
        self, container: str, *, follow: bool, tail: int | None, timed: bool, since: str
    ) -> AsyncGenerator[LogChunk, None]:
        """Yield what it wrote. When following, silence has no limit: it may have nothing to say for days."""
        tail_text = "all" if tail is None else str(tail)
        params = {"stdout": "true", "stderr": "true", "tail": tail_text, "follow": str(follow).lower()}
        params |= {"timestamps": "true"} if timed else {}
        params |= {"since": to_unix_time(since)} if since else {}
        call = Call(f"read the logs of container {container}", "GET", f"/containers/{container}/logs", params)
        frames = Frames(is_timed=timed)
        async with aclosing(self._framed(call, frames, idle_s=None if follow else self._http.timeout_s)) as chunks:
            async for chunk in chunks:
                yield chunk

    async def exec_create(self, container: str, command: list[str]) -> str:
        body: Json = {"Cmd": command, "AttachStdout": True, "AttachStderr": True}
        what = f"run {command[0]} in container {container}"
        return str((await self._http.object(Call(what, "POST", f"/containers/{container}/exec", body=body)))["Id"])

    async def exec_prepare(self, container: str, spec: ExecSpec) -> str:
        """Return the id of a command to which somebody will be attached."""
        body: Json = {"Cmd": list(spec.command), "AttachStdout": True, "AttachStderr": True}
        body |= {"AttachStdin": spec.has_input, "Tty": spec.has_terminal}
        body |= {"Env": ["TERM=xterm"]} if spec.has_terminal else {}
        call = Call(
            f"run {spec.command[0]} in container {container[:12]}", "POST", f"/containers/{container}/exec", body=body
        )
        return str((await self._http.object(call))["Id"])

    async def exec_attach(
        self, execution: str, *, has_terminal: bool
    ) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """Start the prepared command and return both directions of its connection."""
        body: Json = {"Detach": False, "Tty": has_terminal}
        return await self._http.hijack(
            Call("run a command in a container", "POST", f"/exec/{execution}/start", body=body)
        )

    async def exec_resize(self, execution: str, columns: int, rows: int) -> None:
        params = {"w": str(columns), "h": str(rows)}
        await self._http.read(Call("resize a terminal", "POST", f"/exec/{execution}/resize", params))

    async def exec_output(self, execution: str) -> AsyncGenerator[LogChunk, None]:
        """Start the prepared command and yield what it writes until it ends; the caller bounds the time."""
        body: Json = {"Detach": False, "Tty": False}
        call = Call("run a command in a container", "POST", f"/exec/{execution}/start", body=body)
        async with aclosing(self._framed(call, Frames(), idle_s=None)) as chunks:
            async for chunk in chunks:
                yield chunk

    async def exec_inspect(self, execution: str) -> Json:
        return await self._http.object(Call("ask how a command ended", "GET", f"/exec/{execution}/json"))

    async def _framed(self, call: Call, frames: Frames, *, idle_s: float | None) -> AsyncGenerator[LogChunk, None]:
        async with aclosing(self._http.chunks(call, idle_s=idle_s)) as chunks:
            async for data in chunks:
                for chunk in frames.feed(data):
                    yield chunk


def _pairs(labels: Mapping[str, str]) -> list[str]:
    return [f"{name}={value}" for name, value in labels.items()]
