"""Carries out what reconcile decided: starts, stops and removals, each in a task of its own, and reports back.

So many starts run at once; restarts don't wait for first starts, and stops for neither. A failure of the container
manager is tried again later, and only a failure of the container itself counts against it.
"""

import asyncio
import random
from itertools import chain, repeat
from typing import assert_never

from agent.config_files import ConfigFiles
from agent.container_spec import Surroundings, check_allowed, container_spec
from agent.driver import Container, ContainerId, ContainerState, Driver, ImageError, Mount, ReadyImage, StartError
from agent.image_ledger import ImageLedger
from agent.leash import Leash
from agent.node import Node
from agent.ownership import ALLOCATION, NODE, Ownership
from agent.pins import Pins
from agent.reconcile import Action, Discard, Forget, Remove, Start, Stop
from agent.references import at_digest
from agent.tracked import Failure, Tracked, Work
from agent.volumes import Volumes
from foundation.backoff import Backoff
from foundation.clock import Clock
from foundation.logs import Log
from foundation.tasks import TaskGroup
from manifests.allocations import Phase
from manifests.containers import PullPolicy
from manifests.errors import InvalidError, WherryError

RETRY = Backoff(0.5, 15.0)
PROGRESS_AFTER_S, PROGRESS_EVERY_S = (2.0, 5.0), 15.0  # between what is told of a pull; most are over sooner
IMAGE_KNOWN_S = 60.0  # so long an image that was present is believed to be still there
_log = Log(__name__)


class Actions:
    """Call `bind` before the first action: the node and its actions know each other."""

    def __init__(
        self,
        driver: Driver,
        ownership: Ownership,
        leash: Leash,
        *,
        clock: Clock,
        rng: random.Random,
        tasks: TaskGroup,
        start_concurrency: int,
        configs: ConfigFiles,
        volumes: Volumes,
        pins: Pins,
        ledger: ImageLedger,
    ) -> None:
        self._ledger = ledger
        self._pins = pins
        self._configs = configs
        self._volumes = volumes
        self._driver = driver
        self._ownership = ownership
        self._leash = leash
        self._clock = clock
        self._rng = rng
        self._tasks = tasks
        self._first_starts = asyncio.Semaphore(start_concurrency)
        self._restarts = asyncio.Semaphore(max(2, start_concurrency // 2))  # a burst of new work doesn't delay them
        self._starts: dict[str, asyncio.Task[None]] = {}
        self._can_cancel: set[str] = set()
        self._images: dict[str, tuple[float, str]] = {}  # when each was last found present, and its digest
        self._discarding: set[ContainerId] = set()
        self._node: Node | None = None
        self.surroundings: Surroundings | None = None  # None until the cluster is known

    def bind(self, node: Node) -> None:
        self._node = node

    @property
    def node(self) -> Node:
        assert self._node is not None
        return self._node

    def perform(self, action: Action) -> None:
        """Begin the action and return at once."""
        match action:
            case Start(container, is_restart):
                task = self._tasks.create_task(self._start(container, is_restart), name=f"start {container}")
                self._starts[container] = task
                task.add_done_callback(lambda done: self._end_start(container, done))
            case Stop(container):
                self._tasks.create_task(self._stop(action), name=f"stop {container}")
            case Remove(container):
                self._tasks.create_task(self._remove(action), name=f"remove {container}")
            case Discard(containers):
                self._tasks.create_task(self._discard(containers), name="discard")
            case Forget():
                self._tasks.create_task(self._tidy(), name="tidy")
            case _:
                assert_never(action)

    def _end_start(self, container: str, task: asyncio.Task[None]) -> None:
        if self._starts.get(container) is task:
            del self._starts[container]

    async def _start(self, container: str, is_restart: bool) -> None:
        tracked = self.node.known(container)
        self._can_cancel.add(container)
        try:
            tracked = await self._with_image(tracked)
            async with self._restarts if is_restart else self._first_starts:
                # From here on half done is worse than late: the manager would go on without us.
                self._can_cancel.discard(container)
                self.node.progress(container, Phase.STARTING)
                started = await self._bring_up(tracked)
            # To look at it is not to start it: the next start needn't wait.
            self.node.finish(container, Work.START, await self._driver.inspect(started))
        except (ImageError, StartError, InvalidError) as error:
            await self._report_failure(tracked, error)
        except WherryError as error:
            self._delay(tracked, Work.START, error)
        finally:
            self._can_cancel.discard(container)

    async def _with_image(self, tracked: Tracked) -> Tracked:
        """Make its image ready, by the digest that all replicas of its version have, and return its record then."""
        digest, wanted = await self._ensure(tracked), tracked.digest
        if not digest or not tracked.may_be_pinned:
            return self.node.known(tracked.id)
        self.node.resolve(tracked.id, wanted or digest)
        if not wanted:
            await self._pins.wait(self.node.known(tracked.id))
        now = self.node.known(tracked.id)
        if now.digest == digest:
            self._images[now.image] = (self._clock.now_s(), digest)  # present under this name as well
        else:
            await self._ensure(now)
            self.node.resolve(now.id, now.digest)
        return self.node.known(tracked.id)

    async def _ensure(self, tracked: Tracked) -> str:
        """Make its image ready, unless it is known to be, and return its digest; "" if it has none."""
        known_s, digest = self._images.get(tracked.image, (-IMAGE_KNOWN_S, ""))
        if self._clock.now_s() - known_s < IMAGE_KNOWN_S and tracked.spec.pull is PullPolicy.IF_MISSING:
            return digest
        self.node.progress(tracked.id, Phase.PULLING)
        telling = self._tasks.create_task(self._tell_progress(tracked), name=f"pull-progress {tracked.id}")
        try:
            ready = await self._driver.ensure_image(tracked.image, tracked.spec.pull)
        finally:
            telling.cancel()
        digest = ready.digest
        await self._note_used(tracked, ready)
        self._images[tracked.image] = (self._clock.now_s(), digest)
        return digest

    async def _note_used(self, tracked: Tracked, ready: ReadyImage) -> None:
        names = [tracked.image, *([at_digest(tracked.image, ready.digest)] if ready.digest else [])]
        for name in names:
            self._ledger.used(name, self._clock.wall_s(), was_pulled=ready.was_pulled)
        if ready.was_pulled:
            await self._ledger.save()

    async def _tell_progress(self, tracked: Tracked) -> None:
        """Say in its status how far the pull has come: seldom, as each time is a write to the store."""
        for delay_s in chain(PROGRESS_AFTER_S, repeat(PROGRESS_EVERY_S)):
            await self._clock.sleep(delay_s)
            self.node.tell_pulled(tracked.id, self._driver.pulling(tracked.image))

    async def _bring_up(self, tracked: Tracked) -> ContainerId:
        assert self.surroundings is not None  # assignments come from a known cluster
        if tracked.container is not None and tracked.container.state is ContainerState.CREATED:
            await self._leash.hold(tracked, tracked.container.id)
            await self._driver.start(tracked.container.id)
            return tracked.container.id
        mounts: tuple[Mount, ...] = ()
        if self._configs.is_needed(tracked):
            mounts = await asyncio.to_thread(self._configs.write, tracked)
        if tracked.spec.mounts:
            check_allowed(tracked, self.surroundings)
            mounts = (*mounts, *await asyncio.to_thread(self._volumes.prepare, tracked))
            self._volumes.note()  # servers hear of a new one before they hear that its container runs
        spec = container_spec(tracked, self.surroundings, self._ownership, mounts)
        try:
            container = await self._driver.create(spec)
        except ImageError:
            if self._images.pop(tracked.image, None) is None:
                raise
            self._can_cancel.add(tracked.id)  # nothing was created, and a pull can take long
            await self._ensure(tracked)  # it was removed since
            self._can_cancel.discard(tracked.id)
            container = await self._driver.create(spec)
        await self._leash.hold(tracked, container)
        await self._driver.start(container)
        return container

    async def _report_failure(self, tracked: Tracked, error: WherryError) -> None:
        reason = "imageFailed" if isinstance(error, ImageError) else "startFailed"
        message = error.sentence()
        _log.info("start failed", container=tracked.id, attempt=tracked.status.attempt, why=message)
        try:
            found = await self._containers_of(tracked)
        except WherryError:
            found = []  # the next full list shows it
        current = next((c for c in found if c.labels.get("wherry.attempt") == str(tracked.status.attempt)), None)
        self.node.fail_start(tracked.id, Failure(reason, message), current)

    async def _stop(self, stop: Stop) -> None:
        tracked = self.node.known(stop.container)
        try:
            await self._settle_start(stop.container)
            tracked = self.node.known(stop.container)
            container = tracked.container
            found = await self._containers_of(tracked) if container is None else [container]
            for running in found:
                if running.state is ContainerState.RUNNING:
                    await self._driver.stop(running.id, signal=stop.signal, grace_s=stop.grace_s)
            last = found[-1] if found else None
            ended = await self._driver.inspect(last.id) if last else None
            self.node.finish(stop.container, Work.STOP, ended)
        except WherryError as error:
            self._delay(tracked, Work.STOP, error)

    async def _settle_start(self, container: str) -> None:
        """Wait until a start that is under way has ended, by cancellation where that leaves nothing behind."""
        task = self._starts.get(container)
        if task is None:
            return
        if container in self._can_cancel:
            task.cancel()
        await asyncio.wait([task])

    async def _remove(self, remove: Remove) -> None:
        tracked = self.node.known(remove.container)
        try:
            for container in remove.containers:
                await self._driver.remove(container)
            self.node.finish_removal(remove.container)
        except WherryError as error:
            self._delay(tracked, Work.REMOVE, error)

    async def _discard(self, containers: tuple[ContainerId, ...]) -> None:
        """Stop if need be, and remove. Should it fail, the next full list asks for it again."""
        todo = [container for container in containers if container not in self._discarding]
        self._discarding.update(todo)
        try:
            for container in todo:
                await self._driver.stop(container, signal="SIGTERM", grace_s=10.0)
                await self._driver.remove(container)
        except WherryError as error:
            _log.warning("container could not be removed yet", why=error.what)
        finally:
            self._discarding.difference_update(todo)

    async def _tidy(self) -> None:
        """Remove the configs of what isn't here any more, once a server has said what is."""
        if not self._configs.is_used():
            return
        there = await asyncio.to_thread(self._configs.allocations)
        gone = [allocation for allocation in there if allocation not in self.node.groups]
        if gone and self.node.has_full:
            await asyncio.to_thread(self._configs.remove, gone)

    async def _containers_of(self, tracked: Tracked) -> list[Container]:
        """Return what there is of one container with our seal, the newest attempt last."""
        around = self.surroundings
        assert around is not None
        found = await self._driver.list_containers({NODE: around.node, ALLOCATION: tracked.allocation})
        owned = [(identity, c) for c in found if (identity := self._ownership.owned(c.labels)) is not None]
        mine = [(identity.attempt, c) for identity, c in owned if identity.container == tracked.name]
        return [container for _, container in sorted(mine, key=lambda pair: pair[0])]

    def _delay(self, tracked: Tracked, work: Work, error: WherryError) -> None:
        delay_s = RETRY.delay_s(tracked.tries + 1, self._rng)
        if tracked.tries == 0:
            _log.warning("work was put off", container=tracked.id, work=work, why=str(error))
        self.node.delay(
            tracked.id, work, delay_s=delay_s, message=f"{error.what}: {error.why}" if error.why else error.what
        )
