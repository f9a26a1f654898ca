"""What the handlers of the API need, put into the application once."""

from dataclasses import dataclass

from aiohttp import ClientSession, web

from control_plane.changes import ChangeFeed
from control_plane.controllers.standing import Standing
from control_plane.desired.configs import ConfigWriter
from control_plane.desired.crons import CronRunner
from control_plane.desired.freeze import FreezeWriter
from control_plane.desired.moves import MoveWriter
from control_plane.desired.nodes import NodeWriter
from control_plane.desired.rollouts import RolloutWriter
from control_plane.desired.settings import SettingsWriter
from control_plane.desired.visits import VisitWriter
from control_plane.desired.workloads import WorkloadWriter
from control_plane.membership import Membership
from control_plane.records import ServerRecord
from control_plane.rehearsal.rehearser import Rehearser
from control_plane.session_handler import SessionHandler
from control_plane.state import ClusterState
from control_plane.store.protocol import Store
from foundation.clock import Clock


@dataclass(frozen=True, slots=True)
class Context:
    store: Store
    state: ClusterState
    workload_writer: WorkloadWriter
    config_writer: ConfigWriter
    rollout_writer: RolloutWriter
    cron_runner: CronRunner
    node_writer: NodeWriter
    freeze_writer: FreezeWriter
    visit_writer: VisitWriter
    move_writer: MoveWriter
    settings_writer: SettingsWriter
    standing: Standing
    rehearser: Rehearser
    changes: ChangeFeed
    sessions: SessionHandler
    membership: Membership
    server: ServerRecord
    clock: Clock
    peers: ClientSession  # for what only another server can answer


CONTEXT: web.AppKey[Context] = web.AppKey("context", Context)


def context_of(request: web.Request) -> Context:
    return request.app[CONTEXT]
