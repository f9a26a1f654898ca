"""Hints from a container runtime that something happened to a container, from the best source that it has.

The CRI's own events (containerd from 1.7 on, CRI-O where they are switched on); else containerd's, on the same socket;
else a list every second. All are filtered by label here, and none is replayed: what happened since `since_s` and before
the subscription is found in a list.
"""

import re
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import aclosing, asynccontextmanager, suppress

from agent.driver import ContainerId
from agent.drivers.cri_channel import CriChannel, Stream, UnimplementedError
from agent.drivers.cri_codec import HOLDER, POD_KIND
from agent.drivers.cri_methods import (
    CONTAINER_STATUS,
    CONTAINERD_EVENTS,
    EVENTS,
    LIST_CONTAINERS,
    LIST_PODS,
    POD_STATUS,
    VERSION,
)
from agent.drivers.cri_stubs import cri_pb2 as pb
from foundation.clock import Clock
from manifests.errors import NotFoundError

LIST_EVERY_S = 1.0
OWN_EVENTS_SINCE = (1, 7)  # containerd
MOST_KNOWN = 4096  # ids that are remembered to have the labels
_SETTLE_S = 2.0
_SETTLE_EVERY_S = 0.01
_NAMESPACE = "k8s.io"  # containerd's, of all that its CRI makes
_START, _EXIT, _OOM = "/tasks/start", "/tasks/exit", "/tasks/oom"
_WHAT = "follow the container runtime's events"


class CriEvents:
    def __init__(self, channel: CriChannel, clock: Clock) -> None:
        self._channel, self._clock = channel, clock

    async def follow(self, labels: Mapping[str, str], since_s: float) -> AsyncGenerator[ContainerId, None]:
        """Yield hints from that time on, on the wall clock, until the runtime goes away."""
        wanted = _Wanted(self._channel, labels)
        async with self._source() as happened:
            for container in await wanted.changed_since(since_s):
                yield container
            async for found, has_ended in happened:
                if await wanted.has(found):
                    if has_ended:
                        await self._settle(found)
                    yield ContainerId(found)

    @asynccontextmanager
    async def _source(self) -> AsyncIterator[AsyncIterator[tuple[str, bool]]]:
        """Subscribe; the ids of containers and pods to which something happened come with whether it was their end."""
        version = await self._channel.call(VERSION, pb.VersionRequest(), _WHAT)
        if version.runtime_name == "containerd" and _numbers(version.runtime_version) < OWN_EVENTS_SINCE:
            topics = [f'namespace=={_NAMESPACE},topic=="{topic}"' for topic in (_START, _EXIT, _OOM)]
            request = pb.SubscribeRequest(filters=topics)
            async with aclosing(await self._channel.stream(CONTAINERD_EVENTS, request, _WHAT)) as events:
                yield _of_containerd(events)
        else:
            async with aclosing(await self._channel.stream(EVENTS, pb.Empty(), _WHAT)) as own:
                yield self._own_or_listed(own)

    async def _own_or_listed(self, events: Stream[pb.ContainerEvent]) -> AsyncGenerator[tuple[str, bool], None]:
        try:
            async for event in events:
                yield event.container_id, False  # comes after the status has changed
        except UnimplementedError:
            async for listed in self._listed():
                yield listed

    async def _listed(self) -> AsyncGenerator[tuple[str, bool], None]:
        last: dict[str, int] = {}
        is_first = True
        while True:
            answer = await self._channel.call(LIST_CONTAINERS, pb.ListContainersRequest(), _WHAT)
            now = {found.id: int(found.state) for found in answer.containers}
            for container in {**last, **now}:
                if last.get(container) != now.get(container) and not is_first:
                    yield container, False
            last, is_first = now, False
            await self._clock.sleep(LIST_EVERY_S)

    async def _settle(self, container: str) -> None:
        """Return when the CRI knows of the end as well, which it hears at the same time as we do."""
        end_s = self._clock.now_s() + _SETTLE_S
        while self._clock.now_s() < end_s:
            if not await self._is_running(container):
                return
            await self._clock.sleep(_SETTLE_EVERY_S)

    async def _is_running(self, container: str) -> bool:
        """Say whether the CRI takes the container, or the pod, to be running."""
        with suppress(NotFoundError):
            request = pb.ContainerStatusRequest(container_id=container)
            return (await self._channel.call(CONTAINER_STATUS, request, _WHAT)).status.state == pb.CONTAINER_RUNNING
        with suppress(NotFoundError):
            pod = pb.PodSandboxStatusRequest(pod_sandbox_id=container)
            return (await self._channel.call(POD_STATUS, pod, _WHAT)).status.state == pb.SANDBOX_READY
        return False


async def _of_containerd(events: Stream[pb.Envelope]) -> AsyncGenerator[tuple[str, bool], None]:
    async for event in events:
        if event.topic != _EXIT:
            yield pb.TaskEvent.FromString(event.event.value).container_id, False
            continue
        ended = pb.TaskExit.FromString(event.event.value)
        if ended.id == ended.container_id:  # else a command that was run inside
            yield ended.container_id, True


def _numbers(version: str) -> tuple[int, int]:
    """Return the first two numbers of a version.

    >>> _numbers("1.6.20~ds1"), _numbers("v2.0.0-rc.1")
    ((1, 6), (2, 0))
    """
    found = re.match(r"v?(\d+)\.(\d+)", version)
    return (int(found.group(1)), int(found.group(2))) if found else (0, 0)


class _Wanted:
    """Which containers have the labels; holders of networks count as such, other pods don't."""

    def __init__(self, channel: CriChannel, labels: Mapping[str, str]) -> None:
        self._channel, self._labels = channel, labels
        self._known: set[str] = set()

    async def changed_since(self, since_s: float) -> list[ContainerId]:
        """Return a hint for each start and end since that time."""
        hints: list[ContainerId] = []
        for container in await self._containers():
            request = pb.ContainerStatusRequest(container_id=container)
            try:
                status = (await self._channel.call(CONTAINER_STATUS, request, _WHAT)).status
            except NotFoundError:
                continue
            times = (status.started_at, status.finished_at)
            hints += [ContainerId(container) for at in times if at / 1e9 >= since_s]
        return hints

    async def has(self, container: str) -> bool:
        """Say whether it has them. A no isn't kept: a pod that is being made is in no list when its start is told."""
        if container in self._known:
            return True
        if not await self._containers(container) and not await self._is_holder(container):
            return False
        if len(self._known) >= MOST_KNOWN:
            self._known.clear()
        self._known.add(container)
        return True

    async def _containers(self, container: str = "") -> list[str]:
        labels = pb.ContainerFilter(id=container, label_selector=self._labels)
        answer = await self._channel.call(LIST_CONTAINERS, pb.ListContainersRequest(filter=labels), _WHAT)
        return [found.id for found in answer.containers]

    async def _is_holder(self, pod: str) -> bool:
        labels = pb.PodSandboxFilter(id=pod, label_selector={**self._labels, POD_KIND: HOLDER})
        answer = await self._channel.call(LIST_PODS, pb.ListPodSandboxRequest(filter=labels), _WHAT)
        return bool(answer.items)
