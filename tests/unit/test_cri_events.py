"""Hints from runtimes of other kinds than containerd 1.6: a real gRPC server stands for what they answer."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest

from agent.drivers.cri_channel import CriChannel
from agent.drivers.cri_events import CriEvents
from agent.drivers.cri_methods import CONTAINER_STATUS, EVENTS, LIST_CONTAINERS, LIST_PODS, VERSION
from agent.drivers.cri_stubs import cri_pb2 as pb
from foundation.clock import SystemClock
from foundation.grpc_method import Method

LABELS = {"ours": "yes"}


class Runtime:
    """A runtime with one container of ours, `c1`, and one of others, `x1`."""

    def __init__(self, name: str, *, has_events: bool) -> None:
        self.name, self.has_events = name, has_events
        self.state = pb.CONTAINER_RUNNING
        self.told: asyncio.Queue[str] = asyncio.Queue()

    async def version(self, request: pb.VersionRequest, context: Any) -> pb.VersionResponse:
        return pb.VersionResponse(runtime_name=self.name, runtime_version="1.30.1")

    async def containers(self, request: pb.ListContainersRequest, context: Any) -> pb.ListContainersResponse:
        ours = pb.Container(id="c1", state=self.state, labels=LABELS)
        found = [ours, pb.Container(id="x1", state=self.state)]
        wanted = request.filter
        found = [c for c in found if not wanted.id or c.id == wanted.id]
        return pb.ListContainersResponse(containers=[c for c in found if not wanted.label_selector or c.labels])

    async def pods(self, request: pb.ListPodSandboxRequest, context: Any) -> pb.ListPodSandboxResponse:
        return pb.ListPodSandboxResponse()

    async def status(self, request: pb.ContainerStatusRequest, context: Any) -> pb.ContainerStatusResponse:
        return pb.ContainerStatusResponse(status=pb.ContainerStatus(id=request.container_id, state=self.state))

    async def events(self, request: pb.Empty, context: Any) -> AsyncIterator[pb.ContainerEvent]:
        if not self.has_events:
            await context.abort(grpc.StatusCode.UNIMPLEMENTED, "unknown method")
        while True:
            yield pb.ContainerEvent(container_id=await self.told.get())


@asynccontextmanager
async def served(runtime: Runtime, folder: Path) -> AsyncIterator[CriEvents]:
    def unary(method: Method[Any, Any], handler: Callable[..., Any]) -> tuple[str, Any]:
        made = grpc.unary_unary_rpc_method_handler(
            handler, method.request.FromString, method.response.SerializeToString
        )
        return method.path, made

    calls = dict(
        [
            unary(VERSION, runtime.version),
            unary(LIST_CONTAINERS, runtime.containers),
            unary(LIST_PODS, runtime.pods),
            unary(CONTAINER_STATUS, runtime.status),
        ]
    )
    calls[EVENTS.path] = grpc.unary_stream_rpc_method_handler(
        runtime.events, EVENTS.request.FromString, EVENTS.response.SerializeToString
    )
    by_service: dict[str, dict[str, Any]] = {}
    for path, handler in calls.items():
        _, service, name = path.split("/")
        by_service.setdefault(service, {})[name] = handler
    server = grpc.aio.server()
    for service, handlers in by_service.items():
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, handlers),))
    socket = folder / "cri.sock"
    server.add_insecure_port(f"unix:{socket}")
    await server.start()
    channel = CriChannel(str(socket), timeout_s=5)
    try:
        yield CriEvents(channel, SystemClock())
    finally:
        await channel.close()
        await server.stop(None)


@pytest.mark.parametrize("name", ["cri-o", "containerd"])
async def test_a_runtime_with_events_of_its_own_is_followed_by_them(name: str, tmp_path: Path) -> None:
    runtime = Runtime(name, has_events=True)
    async with served(runtime, tmp_path) as events, asyncio.timeout(10):
        for told in ("x1", "c1", "x1", "c1"):
            runtime.told.put_nowait(told)
        hints = events.follow(LABELS, since_s=1.0)
        assert [await anext(hints) for _ in range(2)] == ["c1", "c1"]
        await hints.aclose()


async def test_a_runtime_without_events_is_listed(tmp_path: Path) -> None:
    runtime = Runtime("cri-o", has_events=False)
    async with served(runtime, tmp_path) as events, asyncio.timeout(10):
        hints = events.follow(LABELS, since_s=1.0)
        async with asyncio.TaskGroup() as tasks:
            first = tasks.create_task(anext(hints))
            while not first.done():
                runtime.state = pb.CONTAINER_EXITED if runtime.state == pb.CONTAINER_RUNNING else pb.CONTAINER_RUNNING
                await asyncio.wait([first], timeout=0.7)
        assert first.result() == "c1"
        await hints.aclose()
