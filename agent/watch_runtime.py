"""Watches the container manager: its events are hints to look, a full list now and then is the truth.

A manager that doesn't answer says nothing about containers: they stay as last seen, and it is asked again.
"""

import asyncio
import random

from agent.driver import ContainerId, Driver
from agent.node import Node
from agent.node_news import NodeNews
from agent.ownership import NODE, Ownership
from agent.tracked import Work
from foundation.backoff import Backoff
from foundation.clock import Clock
from foundation.logs import Log
from foundation.tasks import TaskGroup
from manifests.errors import WherryError

LIST_EVERY_S = (10.0, 15.0)
RECONNECT = Backoff(0.2, 2.0)
TELL_AFTER_S = 5.0  # a short restart of the manager is not worth a status of every allocation
_log = Log(__name__)


class RuntimeWatch:
    def __init__(
        self,
        driver: Driver,
        node: Node,
        ownership: Ownership,
        news: NodeNews,
        *,
        name: str,
        clock: Clock,
        rng: random.Random,
    ) -> None:
        self._driver = driver
        self._node = node
        self._ownership = ownership
        self._news = news
        self._labels = {NODE: name}
        self._clock = clock
        self._rng = rng
        self._hints: dict[ContainerId, None] = {}
        self._hinted = asyncio.Event()
        self._list_now = asyncio.Event()
        self._away_since_s: float | None = None
        self._told = ""

    async def run(self) -> None:
        async with TaskGroup() as tasks:
            tasks.create_task(self._follow_events(), name="follow-events")
            tasks.create_task(self._inspect_hinted(), name="inspect-hinted")
            tasks.create_task(self._list_regularly(), name="list-containers")

    async def _follow_events(self) -> None:
        failures = 0
        while True:
            self._list_now.set()
            began_s = self._clock.now_s()
            try:
                async for container in self._driver.events(self._labels):
                    self._hints[container] = None
                    self._hinted.set()
                reason = "it closed its event stream"
            except WherryError as error:
                reason = str(error)
            self._note_away(reason)
            self._node.lose_sight()
            failures = 1 if self._clock.now_s() - began_s > RECONNECT.most_s else failures + 1
            await self._clock.sleep(RECONNECT.delay_s(failures, self._rng))

    async def _inspect_hinted(self) -> None:
        """Look at what events named. Work under way looks for itself when it is done."""
        while True:
            self._hinted.clear()
            while self._hints:
                container = next(iter(self._hints))
                del self._hints[container]
                await self._inspect(container)
            await self._hinted.wait()

    async def _inspect(self, container: ContainerId) -> None:
        tracked = self._node.container_of(container)
        if tracked is None or tracked.work is not Work.NONE:
            return
        try:
            seen = await self._driver.inspect(container)
        except WherryError as error:
            self._note_away(str(error))
            self._list_now.set()
        else:
            self._node.see(tracked, seen)

    async def _list_regularly(self) -> None:
        while True:
            self._list_now.clear()
            is_fine = await self._list()
            delay_s = self._rng.uniform(*LIST_EVERY_S) if is_fine else RECONNECT.delay_s(3, self._rng)
            try:
                async with asyncio.timeout(delay_s):
                    await self._list_now.wait()
            except TimeoutError:
                continue
            await self._clock.sleep(RECONNECT.first_s)  # the subscription, and more hints of trouble, come first

    async def _list(self) -> bool:
        """Return whether the manager answered, and take in what it said."""
        before, asked_s = self._node.tracked, self._clock.now_s()
        try:
            found = await self._driver.list_containers(self._labels)
        except WherryError as error:
            self._note_away(str(error), since_s=asked_s)
            return False
        self._note_back()
        owned = [(identity, c) for c in found if (identity := self._ownership.owned(c.labels)) is not None]
        self._node.see_all(owned, before)
        return True

    def _note_away(self, reason: str, *, since_s: float | None = None) -> None:
        now_s = self._clock.now_s()
        if self._away_since_s is None:
            self._away_since_s = now_s if since_s is None else since_s
            _log.warning("container manager went away", why=reason)
        if now_s - self._away_since_s > TELL_AFTER_S and not self._told:
            trouble = f"the container manager doesn't answer: {reason.splitlines()[0]}"
            self._news.set_trouble(trouble)
            self._told = f"this may be out of date: {trouble}"
            self._node.tell_all(self._told, instead_of="")

    def _note_back(self) -> None:
        if self._away_since_s is None:
            return
        _log.info("container manager is back", away_s=round(self._clock.now_s() - self._away_since_s, 1))
        self._away_since_s = None
        if self._told:
            self._node.tell_all("", instead_of=self._told)
            self._told = ""
            self._news.set_trouble("")
        self._node.retry_now()
