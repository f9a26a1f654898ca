"""A user who works while everything breaks: scales, updates, drains, starts jobs; and knows what was promised."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from random import Random

import aiohttp

from tests.chaos.world import SERVICES, batch, watcher
from tests.lab.api import Answer, Api, ApiError

EVERY_S = (3.0, 9.0)
TRIES = 8
AGAIN_S = 2.0
MOST_REPLICAS = {"web": 8, "page": 4, "stubborn": 3, "pair": 3, "single": 3}
_FAILURES = (ApiError, aiohttp.ClientError, TimeoutError, OSError)


@dataclass(frozen=True, slots=True)
class Wish:
    """What a service should be like."""

    replicas: int
    step: int


class User:
    """`wishes` holds, by service, what may be true now: the last acknowledged wish, and later ones of unknown fate."""

    def __init__(self, api: Api, rng: Random, nodes: int) -> None:
        self._api, self._rng = api, rng
        self._nodes = [f"n{number}" for number in range(1, nodes + 1)]
        self._closed: str | None = None  # the node that is cordoned or drained
        self._batches = 0
        self.wishes: dict[str, list[Wish]] = {}
        self.acts: dict[str, int] = {}
        self.refused = 0

    async def begin(self) -> None:
        """Ask for everything that there is at first."""
        for name, replicas in (("web", 6), ("page", 2), ("stubborn", 2), ("pair", 2), ("single", 2)):
            await self._wish(name, Wish(replicas, 1))
        await self._try(lambda: self._api.apply(watcher(1)))

    async def work(self) -> None:
        """Do one thing after the other until cancelled."""
        acts = (self._scale, self._update, self._update_watcher, self._start_batch, self._close_node, self._open_node)
        while True:
            await asyncio.sleep(self._rng.uniform(*EVERY_S))
            act = self._rng.choice(acts)
            await act()
            name = act.__name__.strip("_")
            self.acts[name] = self.acts.get(name, 0) + 1

    async def finish(self) -> None:
        """Open what was closed, so that everything has its place."""
        while self._closed:
            await self._open_node()

    async def _scale(self) -> None:
        name = self._rng.choice(list(SERVICES))
        await self._wish(name, Wish(self._rng.randint(1, MOST_REPLICAS[name]), self.wishes[name][-1].step))

    async def _update(self) -> None:
        name = self._rng.choice(list(SERVICES))
        last = self.wishes[name][-1]
        await self._wish(name, Wish(last.replicas, last.step + 1))

    async def _update_watcher(self) -> None:
        await self._try(lambda: self._api.apply(watcher(self._rng.randrange(1_000_000))))

    async def _start_batch(self) -> None:
        self._batches += 1
        await self._try(lambda: self._api.apply(batch(self._batches)))

    async def _close_node(self) -> None:
        if self._closed is None:
            self._closed = self._rng.choice(self._nodes)
            verb = self._rng.choice(["cordon", "drain"])
            await self._try(lambda: self._post(f"/v1/nodes/{self._closed}/{verb}"))

    async def _open_node(self) -> None:
        if self._closed and await self._try(lambda: self._post(f"/v1/nodes/{self._closed}/uncordon")):
            self._closed = None

    async def _wish(self, name: str, wish: Wish) -> None:
        """Store it. Until it is acknowledged, what was true before may be so still."""
        self.wishes.setdefault(name, []).append(wish)
        if await self._try(lambda: self._put(name, wish)):
            self.wishes[name] = [wish]

    async def _put(self, name: str, wish: Wish) -> None:
        """Store the wish on top of what is there now: a late one of before can't undo it, as it compares as well."""
        path = f"/v1/workloads/default/service/{name}"
        found = await self._api.call("GET", path)
        revision = found.body["revision"] if found.is_ok else 0
        manifest = SERVICES[name](wish.replicas, wish.step)
        _check(await self._api.call("PUT", path, manifest, headers={"If-Match": f'"{revision}"'}))

    async def _post(self, path: str) -> None:
        _check(await self._api.call("POST", path))

    async def _try(self, call: Callable[[], Awaitable[None]]) -> bool:
        """Call until it is acknowledged, or a few times in vain."""
        for _ in range(TRIES):
            try:
                await call()
                return True
            except _FAILURES:
                self.refused += 1
                await asyncio.sleep(AGAIN_S)
        return False


def _check(answer: Answer) -> None:
    if not answer.is_ok:
        raise ApiError(str(answer))
