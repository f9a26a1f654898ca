"""What really ran on the nodes: the life of each container, as engines and the kernel tell it, whatever Wherry says.

Starts are learnt from the engines, which may be slow or hang; ends from the kernel, which knows them also while an
engine hangs, since hosts share the test's process ids. Share it freely: it only looks, and checks nothing.
"""

import asyncio
import contextlib
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import aiohttp

from manifests.workloads import MAIN
from tests.lab.commands import LabError
from tests.lab.host import Host

LOOK_EVERY_S = 0.5
ENDS_EVERY_S = 0.1
ANSWER_S = 3.0  # an engine that takes longer is asked again later
_UNSEEN = (LabError, aiohttp.ClientError, OSError, TimeoutError)


@dataclass(frozen=True, slots=True)
class Life:
    """One run of one container, from its engine's start to its end. Times are those of this machine's wall clock."""

    node: str
    container: str
    allocation: str
    name: str  # which of its allocation's
    attempt: int
    pid: int
    started_at: str
    seen_s: float  # when it was first seen
    ended_s: float | None = None  # when it was first seen to have ended

    @property
    def is_over(self) -> bool:
        return self.ended_s is not None


class Truth:
    """Follows all engines in the background; `lives` holds every run that was seen, in the order of being seen."""

    def __init__(self, hosts: Sequence[Host]) -> None:
        self._hosts = tuple(hosts)
        self._lives: dict[tuple[str, str], Life] = {}  # by container and start
        self._births: dict[tuple[str, str], int] = {}  # the kernel's start time of each pid: numbers are used again

    @property
    def lives(self) -> tuple[Life, ...]:
        return tuple(self._lives.values())

    async def follow(self) -> None:
        """Look until cancelled. A hung engine holds up nothing but news of its own starts."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._follow_ends(), name="truth-ends")
            for host in self._hosts:
                tasks.create_task(self._follow_starts(host), name=f"truth-{host.name}")

    async def look(self) -> None:
        """Look once at all that answers."""
        for host in self._hosts:
            with contextlib.suppress(*_UNSEEN):
                await self._look_at(host)
        self._note_ends()

    async def _follow_ends(self) -> None:
        while True:
            self._note_ends()
            await asyncio.sleep(ENDS_EVERY_S)

    async def _follow_starts(self, host: Host) -> None:
        while True:
            with contextlib.suppress(*_UNSEEN):
                await self._look_at(host)
            await asyncio.sleep(LOOK_EVERY_S)

    async def _look_at(self, host: Host) -> None:
        if not host.is_on:
            return
        async with asyncio.timeout(ANSWER_S):
            for entry in await host.dockerd.call("GET", "/containers/json?all=1"):
                if "wherry.allocation" in entry["Labels"] and not self._is_known(entry):
                    self._note_start(host, await host.dockerd.call("GET", f"/containers/{entry['Id']}/json"))

    def _is_known(self, entry: Mapping[str, Any]) -> bool:
        """Tell whether all is known of it: the life that it lives, or any that it has lived."""
        known = [life for (container, _), life in self._lives.items() if container == entry["Id"]]
        is_running = entry["State"] == "running"
        return entry["State"] == "created" or any(not life.is_over for life in known) or bool(known and not is_running)

    def _note_start(self, host: Host, found: Mapping[str, Any]) -> None:
        state, labels = found["State"], found["Config"]["Labels"]
        key = found["Id"], state["StartedAt"]
        if key in self._lives or state["StartedAt"].startswith("0001"):
            return
        now_s = time.time()
        birth = _birth(state["Pid"]) if state["Running"] else None
        if birth is not None:
            self._births[key] = birth
        self._lives[key] = Life(
            node=host.name,
            container=found["Id"],
            allocation=labels["wherry.allocation"],
            name=labels.get("wherry.container", MAIN),
            attempt=int(labels["wherry.attempt"]),
            pid=state["Pid"],
            started_at=state["StartedAt"],
            seen_s=now_s,
            ended_s=None if birth is not None else now_s,
        )

    def _note_ends(self) -> None:
        for key, life in self._lives.items():
            if not life.is_over and _birth(life.pid) != self._births[key]:
                self._lives[key] = replace(life, ended_s=time.time())


def _birth(pid: int) -> int | None:
    """Return when the kernel started the process, in its ticks; None if it doesn't live."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return None if fields[0] in "ZX" else int(fields[19])
