"""One node's agent: ties session, node, actions, runtime watch and health checks together.

Everything from outside is injected: options, driver, transport, clock and chance. Its end, of whatever kind, leaves
all containers as they are.
"""

import asyncio
import random
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

from agent import volumes
from agent.actions import Actions
from agent.config_files import FOLDER, ConfigFiles
from agent.container_spec import Surroundings
from agent.driver import Driver, DriverInfo
from agent.facts import allocatable_of, node_facts, offered_of
from agent.folder import Folder
from agent.generations import Generations
from agent.glass import Glass
from agent.group import Group, changed_members
from agent.health import HealthChecks
from agent.image_garbage import ImageGarbage
from agent.image_ledger import ImageLedger
from agent.kernel import Kernel
from agent.layers import Layers
from agent.leash import Guard, Leash
from agent.log_tails import LogTails
from agent.machine import Machine
from agent.meter import Meter
from agent.node import Node
from agent.node_news import NodeNews
from agent.options import AgentOptions
from agent.outbox import Outbox
from agent.pins import Pins
from agent.session import Session, SessionParts
from agent.state_file import SavedState, load_agent_id, load_state, save_state, to_group, to_saved
from agent.tracked import Tracked
from agent.transport import Transport
from agent.volumes import Volumes
from agent.watch_runtime import RuntimeWatch
from foundation.clock import Clock
from foundation.logs import Log
from foundation.tasks import TaskGroup
from manifests.errors import WherryError
from manifests.nodes import NodeFacts
from manifests.workloads import named_volumes

SAVE_EVERY_S = (
    1.0  # at most so old is the state on disk, but for endings, which are there before a server hears of them
)
LEAST_STARTS = 8  # at once: a start waits more than it works, most of all where its cgroup has little cpu
ASK_DRIVER_EVERY_S = 10.0
DRIVER_INFO_TIMEOUT_S = 3.0
_log = Log(__name__)


class Agent:
    """`run` serves until cancelled."""

    def __init__(
        self,
        options: AgentOptions,
        *,
        driver: Driver,
        transport: Transport,
        folder: Folder,
        machine: Machine,
        clock: Clock,
        rng: random.Random,
        guard: Guard | None = None,
        kernel: Kernel | None = None,
    ) -> None:
        """`kernel` None: containers are not looked into, as where they are no processes of this machine."""
        self._options = options
        self._driver = driver
        self._folder = folder
        self._machine = machine
        self._kernel = kernel
        self._transport = transport
        self._clock = clock
        self._rng = rng
        self._leash = Leash(clock, guard)
        self._outbox = Outbox()
        self._news = NodeNews()
        socket = Path(options.docker_socket)
        self._volumes = Volumes(options.data_dir / volumes.FOLDER, [socket], self._news.facts_changed)
        self._ownership = folder.ownership()
        self._agent_id = load_agent_id(folder)
        self._ledger = ImageLedger(folder)
        state = load_state(folder, machine.boot_id())
        self._boot_id = state.boot_id
        self._cluster = state.cluster
        self._restored = state
        # Before generations were told apart there was but the first.
        generation = state.generation or int(state.applied_revision > 0)
        self._generations = Generations(generation, state.kept, is_fresh=state.is_fresh)
        self._allocatable = allocatable_of(options, machine.resources())  # what cgroups enforce
        self._offered = offered_of(options, machine.resources())  # what is reserved
        self._driver_info: DriverInfo | None = None
        self._node: Node | None = None
        self._followers: tuple[HealthChecks | LogTails | Pins | Meter, ...] = ()
        self._meter: Meter | None = None
        self._actions: Actions | None = None
        self._must_save = False
        self._saving = asyncio.Lock()
        self._has_save_failed = False
        self._cgroup_parent = ""
        self._address = ""

    async def run(self) -> None:
        self._address = await asyncio.to_thread(self._machine.address, self._options)
        await self._learn_driver()
        await self._make_cgroup()
        try:
            async with TaskGroup() as tasks:
                self._assemble(tasks)
                for name, part in self._parts().items():
                    tasks.create_task(part, name=name)
        finally:
            await self._save()
            if self._cgroup_parent:
                self._machine.uncap(self._cgroup_parent)  # only if nothing lives in it

    def _assemble(self, tasks: TaskGroup) -> None:
        concurrency = self._options.start_concurrency or max(LEAST_STARTS, 4 * self._machine.cores())
        pins = Pins()
        self._actions = Actions(
            self._driver,
            self._ownership,
            self._leash,
            clock=self._clock,
            rng=self._rng,
            tasks=tasks,
            start_concurrency=concurrency,
            configs=ConfigFiles(self._options.data_dir / FOLDER),
            volumes=self._volumes,
            pins=pins,
            ledger=self._ledger,
        )
        self._node = Node(
            allocatable=self._offered,
            allowed=self._options.allow,
            clock=self._clock,
            perform=self._actions.perform,
            on_change=self._on_change,
            silent_s=self._leash.silent_s,
            restored=[to_group(saved) for saved in self._restored.allocations],
            applied_revision=self._restored.applied_revision,
            generations=self._generations,
            on_kept=self._on_kept,
        )
        self._actions.bind(self._node)
        self._followers = (
            HealthChecks(self._node, self._driver, clock=self._clock, rng=self._rng, tasks=tasks),
            LogTails(self._node, self._driver, tasks=tasks),
            pins,
        )
        if self._kernel is not None:
            self._meter = Meter(self._node, self._kernel, self._clock, name=self._options.name)
            self._followers = (*self._followers, self._meter)
        self._set_surroundings()

    def _parts(self) -> dict[str, Coroutine[Any, Any, None]]:
        assert self._node is not None
        watch = RuntimeWatch(
            self._driver,
            self._node,
            self._ownership,
            self._news,
            name=self._options.name,
            clock=self._clock,
            rng=self._rng,
        )
        parts = SessionParts(
            node=self._node,
            outbox=self._outbox,
            driver=self._driver,
            facts=self._facts,
            news=self._news,
            clock=self._clock,
            rng=self._rng,
            cluster=lambda: self._cluster,
            pin=self._pin,
            save=self._save,
            heard=self._heard,
            remove_volume=self._remove_volume,
            glass=self._glass(),
        )
        session = Session(self._options.servers, self._transport, parts)
        return {
            "watch-runtime": watch.run(),
            "session": session.run(),
            "go-on-unheard": self._go_on_unheard(session),
            "timers": self._node.run_timers(),
            "save": self._save_regularly(),
            "ask-driver": self._ask_driver(),
            "image-garbage": ImageGarbage(
                self._driver, self._ledger, self._node.wanted_images, self._options.image_policy, self._clock
            ).run(),
            "leash": self._leash.run(self._node.look_for_severed),
            **({"meter": self._meter.run()} if self._meter else {}),
        }

    def _glass(self) -> Glass | None:
        if self._kernel is None or self._meter is None or self._node is None:
            return None
        return Glass(self._node, self._meter, Layers(self._driver, self._kernel))

    # The node's records.

    def _on_change(self, old: Group | None, new: Group | None) -> None:
        if new is None:
            assert old is not None
            self._outbox.forget(old.id)
            self._must_save = True
        else:
            if old is None or old.status is not new.status:
                self._outbox.put(new.status)
            self._must_save |= old is None or _lasting(old) != _lasting(new)
        for before, after in changed_members(old, new):
            self._leash.follow(before, after)
            for follower in self._followers:
                follower.follow(before, after)

    def _heard(self, sent_s: float) -> None:
        """A server was heard. What had been without word for too long until now ends all the same."""
        assert self._node is not None
        self._node.look_for_severed()
        self._leash.heard(sent_s)
        self._node.release_severed()

    async def _go_on_unheard(self, session: Session) -> None:
        """After a reboot start what ran here also where no server can be asked: all may be off, and need just that."""
        assert self._node is not None
        if await session.stays_unheard():
            self._node.go_on_unheard()

    def _on_kept(self) -> None:
        self._must_save = True
        self._set_surroundings()
        self._news.facts_changed()

    async def _pin(self, cluster: str) -> None:
        """Belong to this cluster from now on; written down before its first order is obeyed."""
        if self._cluster != cluster:
            self._cluster = cluster
            self._must_save = True
            self._set_surroundings()
            await self._save()

    def _set_surroundings(self) -> None:
        if self._cluster and self._actions is not None:
            self._actions.surroundings = Surroundings(
                cluster=self._cluster,
                node=self._options.name,
                address=self._options.publish_address,
                cgroup_parent=self._cgroup_parent,
                allocatable=self._allocatable,
                allowed=self._options.allow,
                generation=self._generations.present,
            )

    # The state file.

    async def _save(self) -> None:
        """Write the state if it has changed. A full disk is reported once and stops nothing."""
        async with self._saving:
            if not self._must_save or self._node is None:
                return
            self._must_save = False
            state = SavedState(
                boot_id=self._boot_id,
                cluster=self._cluster,
                applied_revision=self._node.applied_revision,
                generation=self._generations.present,
                is_fresh=self._generations.is_fresh,
                kept=tuple(sorted(self._generations.kept)),
                allocations=tuple(to_saved(group) for group in self._node.groups.values()),
            )
            try:
                await asyncio.to_thread(save_state, self._folder, state)
            except OSError as error:
                self._must_save = True
                if not self._has_save_failed:
                    _log.error("state could not be saved", why=str(error), folder=self._folder)
                self._has_save_failed = True
            else:
                self._has_save_failed = False

    async def _save_regularly(self) -> None:
        while True:
            await self._clock.sleep(SAVE_EVERY_S)
            await self._save()

    # The container manager and the machine.

    def _facts(self) -> NodeFacts:
        return node_facts(
            self._options, self._machine, agent_id=self._agent_id, address=self._address, driver=self._driver_info
        ).model_copy(update={"volumes": self._volumes.ids})

    async def _remove_volume(self, volume: str) -> None:
        """Remove a named volume unless one of this node's allocations has it; the node's facts tell that it is gone."""
        assert self._node is not None
        here = (group.first.assigned for group in self._node.groups.values())
        used = {name for a in here for name in named_volumes(a.workload, a.allocation.index)}
        if volume in self._volumes.ids and volume not in used:
            await asyncio.to_thread(self._volumes.remove, volume)
            self._volumes.note()

    async def _learn_driver(self) -> None:
        try:
            async with asyncio.timeout(DRIVER_INFO_TIMEOUT_S):
                self._driver_info = await self._driver.info()
        except (WherryError, TimeoutError) as error:
            _log.warning("container manager doesn't answer", why=str(error) or "it took too long")

    async def _ask_driver(self) -> None:
        """Ask again until it has answered once, and tell of it."""
        while self._driver_info is None:
            await self._clock.sleep(ASK_DRIVER_EVERY_S)
            await self._learn_driver()
        self._news.facts_changed()

    async def _make_cgroup(self) -> None:
        """Cap all containers together, where the container manager leaves cgroups to whoever makes them."""
        wanted = self._options.cgroup_parent
        parent = f"/wherry-{self._agent_id}" if wanted is None else wanted
        driver = self._driver_info.attributes.get("cgroup.driver") if self._driver_info else None
        if wanted is None and driver == "systemd":
            _log.warning("containers have no common cap", why="systemd keeps the cgroups", fix="give a .slice by flag")
            return
        is_capped = bool(parent) and await asyncio.to_thread(self._machine.cap, parent, self._allocatable)
        self._cgroup_parent = parent if is_capped else wanted or ""


def _lasting(group: Group) -> tuple[object, ...]:
    """Return what of a record must outlive the agent."""
    return group.fate, *(_lasting_of(member) for member in group.members)


def _lasting_of(tracked: Tracked) -> tuple[object, ...]:
    status = tracked.status
    return (
        *(tracked.assigned, tracked.is_withdrawn, tracked.is_admitted, tracked.failures, tracked.due_s),
        *(tracked.first_start_s, tracked.doom, tracked.awaits_word, tracked.has_begun, tracked.round),
        *(status.attempt, status.phase, status.health, status.last_ending),
    )
