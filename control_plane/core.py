"""The core of a server: cache, election, sessions and the writers of what users desire, on an open store.

It knows nothing of HTTP, files or signals, so that a simulator can run the servers of a whole cluster in one process.
`control_plane.server` puts the API in front of it.
"""

import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from control_plane.controllers.bookkeeping import Bookkeeping
from control_plane.controllers.bursts import MOST_PER_PASS
from control_plane.controllers.compactor import PROMISE, HistoryPromise
from control_plane.controllers.leader import Leader
from control_plane.controllers.standing import Standing
from control_plane.desired.committer import Committer
from control_plane.desired.configs import ConfigWriter
from control_plane.desired.crons import CronRunner
from control_plane.desired.freeze import FreezeWriter
from control_plane.desired.moves import MoveWriter
from control_plane.desired.nodes import NodeWriter
from control_plane.desired.rollouts import RolloutWriter
from control_plane.desired.settings import SettingsWriter
from control_plane.desired.visits import VisitWriter
from control_plane.desired.workloads import WorkloadWriter
from control_plane.event_log import EventLog
from control_plane.membership import Membership
from control_plane.records import ServerRecord
from control_plane.session_handler import SessionHandler
from control_plane.session_writes import StatusWriter
from control_plane.sessions import SessionRegistry
from control_plane.spreading import Spreading
from control_plane.state import ClusterState
from control_plane.store.protocol import Store
from foundation.clock import Clock
from foundation.tasks import TaskGroup
from foundation.version import VERSION


@dataclass(frozen=True, slots=True)
class Core:
    """The parts of one server. They live while `running` does."""

    server: ServerRecord
    state: ClusterState
    membership: Membership
    registry: SessionRegistry
    sessions: SessionHandler
    spreading: Spreading
    workload_writer: WorkloadWriter
    config_writer: ConfigWriter
    rollout_writer: RolloutWriter
    cron_runner: CronRunner
    node_writer: NodeWriter
    freeze_writer: FreezeWriter
    visit_writer: VisitWriter
    move_writer: MoveWriter
    settings_writer: SettingsWriter
    leader: Leader
    standing: Standing
    events: EventLog

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Take part in the cluster while the block runs, which begins once this server is a member.

        An agent that came before would be turned away. In the end the lease is given up.
        """
        await self.state.load()
        async with TaskGroup() as tasks:
            parts = (
                tasks.create_task(self.state.follow(), name="follow-store"),
                tasks.create_task(self.registry.watch_silence(), name="watch-silence"),
                tasks.create_task(self.registry.watch_store(), name="watch-store"),
                tasks.create_task(self.spreading.run(), name="spread-agents"),
                tasks.create_task(self.membership.run(self.leader.lead), name="membership"),
            )
            await self.membership.wait_for_lease()
            yield
            for part in parts:
                part.cancel()


def assemble(
    store: Store,
    clock: Clock,
    rng: random.Random,
    *,
    name: str,
    url: str,
    heartbeat_s: float,
    lost_after_s: float,
    promise: HistoryPromise = PROMISE,
    portion: int = MOST_PER_PASS,
) -> Core:
    """Return the parts of a server of that name; `url` is where other servers reach its API."""
    server = ServerRecord(
        id=f"{name}-{rng.getrandbits(32):08x}", name=name, url=url, version=VERSION, started_s=clock.wall_s()
    )
    state = ClusterState(store, clock)
    standing = Standing(state)
    state.subscribe(standing.on_batch)
    events = EventLog(state, clock)
    committer = Committer(store, state, clock)
    configs = ConfigWriter(committer, clock, rng)
    membership = Membership(store, state, server, clock, rng)
    registry = SessionRegistry(
        store,
        state,
        clock,
        server_id=server.id,
        heartbeat_s=heartbeat_s,
        lost_after_s=lost_after_s,
        has_store=lambda: membership.has_lease,
    )
    sessions = SessionHandler(state, registry, StatusWriter(store, state, clock), clock)
    return Core(
        server=server,
        state=state,
        membership=membership,
        registry=registry,
        sessions=sessions,
        spreading=Spreading(state, sessions, clock, server_id=server.id),
        workload_writer=WorkloadWriter(committer, configs, clock, rng),
        config_writer=configs,
        rollout_writer=RolloutWriter(committer, clock),
        cron_runner=CronRunner(committer, clock, rng),
        node_writer=NodeWriter(committer),
        freeze_writer=FreezeWriter(committer, clock),
        visit_writer=VisitWriter(committer, clock, rng),
        move_writer=MoveWriter(committer, clock),
        settings_writer=SettingsWriter(committer),
        leader=Leader(
            store,
            state,
            standing,
            clock,
            Bookkeeping(store, state, clock, events, promise),
            lost_after_s=lost_after_s,
            portion=portion,
        ),
        standing=standing,
        events=events,
    )
