"""Planted defects: each breaks one promise of Wherry in a small way, for as long as a block runs.

The simulator has to find every one of them. Each is described by what is wrong with it.
"""

import asyncio
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from typing import Any

import agent.actions
import agent.agent
import agent.node
import agent.tracked
import agent.watch_runtime
import control_plane.controllers.jobs
import control_plane.controllers.losses
import control_plane.controllers.passes
import control_plane.controllers.services
import control_plane.controllers.snapshot
import control_plane.controllers.standing
import control_plane.controllers.writes
import control_plane.membership
import control_plane.session_handler
import control_plane.session_writes
import control_plane.sessions
import control_plane.state
import tests.simulation.etcd
from agent.group import withdrawn
from agent.ownership import ALLOCATION, ATTEMPT, CLUSTER, NODE, VERSION, Identity, Ownership
from agent.state_file import SavedState
from agent.tracked import Work
from control_plane import keys
from control_plane.controllers import brake
from control_plane.controllers.losses import LossWatch
from control_plane.records import LeaderRecord
from control_plane.store.protocol import CreatedAt, ModifiedAt, Put, Revision, Txn
from foundation.backoff import Backoff
from manifests.allocations import Desired
from manifests.errors import CompactedError, UnavailableError, WherryError
from manifests.nodes import Liveness
from scheduler.model import Eligibility
from tests.simulation.mutant import Mutant, swap
from tests.simulation.mutants_of_decisions import OF_DECISIONS

# The leader.


def _no_fence(stack: ExitStack) -> None:
    def transactions(fence: CreatedAt, units: Any, *, also: Any = ()) -> Iterator[Txn]:
        return (Txn([c for c in txn.compares if c != fence], txn.writes) for txn in old(fence, units, also=also))

    old = swap(stack, control_plane.controllers.writes, "transactions", transactions)


def _no_compares_of_placements(stack: ExitStack) -> None:
    def placement_unit(*args: Any, **named: Any) -> Any:
        return replace(old(*args, **named), compares=())

    old = swap(stack, control_plane.controllers.passes, "placement_unit", placement_unit)


def _slot_placed_twice(stack: ExitStack) -> None:
    def place(asks: Any, ledger: Any, **named: Any) -> Any:
        plan = old(asks, ledger, **named)
        first = next((p for p in plan.placements if p.index == 1), None)
        others = [name for name in sorted(ledger.nodes.rows) if first and name != first.node]
        again = (replace(first, node=others[0]),) if first and others else ()
        return replace(plan, placements=(*plan.placements, *again))

    old = swap(stack, control_plane.controllers.passes, "place", place)


def _capacity_freed_early(stack: ExitStack) -> None:
    def holds(state: Any, allocation: Any) -> bool:
        return bool(old(state, allocation)) and allocation.desired is Desired.RUN

    old = swap(stack, control_plane.controllers.standing, "holds_resources", holds)


def _drained_node_used(stack: ExitStack) -> None:
    def eligibility(status: Any, intent: Any) -> Eligibility:
        found = old(status, intent)
        return Eligibility.READY if found is Eligibility.CORDONED else found

    old = swap(stack, control_plane.controllers.snapshot, "eligibility_of", eligibility)


def _job_forgets_success(stack: ExitStack) -> None:
    index = control_plane.controllers.jobs._Index
    swap(stack, index, "has_succeeded", property(lambda self: False))


def _no_reschedule_backoff(stack: ExitStack) -> None:
    swap(stack, control_plane.controllers.services, "reschedule_delay_s", lambda seen, record: 0.0)


def _records_removed_early(stack: ExitStack) -> None:
    def removals(seen: Sequence[Any]) -> tuple[Any, ...]:
        return tuple(s.allocation for s in seen if not s.is_wanted)

    swap(stack, control_plane.controllers.services, "removals_of", removals)


def _lead_taken_blindly(stack: ExitStack) -> None:
    """A conflict of the election is tried again without what conflicted."""

    async def elected(self: Any, lease: Any) -> Any:
        fence = await old(self, lease)
        if fence is not None or self._state.leader.get("") is None:
            return fence
        record = LeaderRecord(server=self._server.id)
        revision = await self._store.commit(Txn((), (Put(keys.LEADER, record.to_bytes(), lease.id),)))
        return CreatedAt(keys.LEADER, revision)

    old = swap(stack, control_plane.membership.Membership, "_elected", elected)


def _lost_by_a_missing_lease(stack: ExitStack) -> None:
    def orphans(self: LossWatch, now_s: float) -> list[Any]:
        return [
            (n, 0.0)
            for n in self._state.nodes.values()
            if n.liveness is Liveness.READY and n.server not in self._state.servers
        ]

    def mark(self: LossWatch, status: Any, liveness: Any, why: str, silent_s: float) -> Any:
        return old(self, status, Liveness.LOST, why, silent_s)

    swap(stack, LossWatch, "_orphans", orphans)
    old = swap(stack, LossWatch, "_mark", mark)


def _silent_is_lost_at_once(stack: ExitStack) -> None:
    """The leader judges by no time at all."""
    swap(stack, control_plane.controllers.losses, "judge", _judged_at_once(stack))


def _judged_at_once(stack: ExitStack) -> Any:
    old = brake.judge

    def judge(nodes: Any, episode: Any, *, lost_after_s: float, hold_s: float) -> Any:
        return old(nodes, None, lost_after_s=0.1, hold_s=0.0)

    return judge


# Sessions and state.


def _statuses_of_old_sessions(stack: ExitStack) -> None:
    def txn(session: Any, statuses: Any) -> Txn:
        whole = old(session, statuses)
        return Txn([c for c in whole.compares if not isinstance(c, ModifiedAt)], whole.writes)

    old = swap(stack, control_plane.session_writes, "_txn", txn)


def _terminal_phase_left(stack: ExitStack) -> None:
    def is_news(self: Any, session: Any, status: Any) -> bool:
        allocation = self._state.allocations.get(status.id)
        return allocation is not None and status != self._state.statuses.get(status.id)

    def assigned(self: Any, allocation: Any) -> Any:
        found = old(self, allocation)
        return found.model_copy(update={"ended": None}) if found else None

    swap(stack, control_plane.session_writes.StatusWriter, "_is_news", is_news)
    old = swap(stack, control_plane.session_handler.ServedSession, "_assigned", assigned)


def _stalled_server_judges(stack: ExitStack) -> None:
    """Heartbeats that came while the server was stalled count as missed."""
    swap(stack, control_plane.sessions.SessionRegistry, "_forgive", lambda self, now_s: None)
    swap(stack, LossWatch, "_begin_anew", lambda self: None)
    swap(stack, control_plane.controllers.losses, "SUSPECT_SHARE", 0.0)


def _stale_assignments(stack: ExitStack) -> None:
    async def await_news(self: Any, hello: Any) -> None:
        return None

    def assign(self: Any, frame: Any) -> bool:
        self.applied_revision = min(self.applied_revision, frame.revision)
        return bool(old(self, frame))

    async def wait_for(self: Any, revision: int, **named: Any) -> None:
        if sys._getframe(1).f_code.co_name != "register":
            await waited(self, revision, **named)

    swap(stack, control_plane.sessions.SessionRegistry, "_await_news_of", await_news)
    waited = swap(stack, control_plane.state.ClusterState, "wait_for", wait_for)
    old = swap(stack, agent.node.Node, "assign", assign)


def _compaction_skipped(stack: ExitStack) -> None:
    async def follow(self: Any) -> None:
        while True:
            try:
                async for batch in self._store.watch(keys.ROOT, after=self.revision):
                    await self._apply(batch.changes, batch.revision)
            except CompactedError:
                self.revision = (await self._store.list_prefix(keys.ROOT, limit=1)).revision
            except UnavailableError:
                await self._clock.sleep(1.0)

    swap(stack, control_plane.state.ClusterState, "follow", follow)


def _withdrawals_not_sent(stack: ExitStack) -> None:
    def assignments(self: Any, changed: Any) -> Any:
        return old(self, changed).model_copy(update={"withdrawn": ()})

    old = swap(stack, control_plane.session_handler.ServedSession, "_assignments", assignments)


def _unknown_outcome_retried(stack: ExitStack) -> None:
    """The store's client sends a write again as if it were another one."""

    def apply(self: Any, txn: Txn, operation: int, *rest: Any) -> Revision:
        return Revision(old(self, txn, self.new_operation(), *rest))

    old = swap(stack, tests.simulation.etcd.Etcd, "apply", apply)


def _version_removed_early(stack: ExitStack) -> None:
    """A user's change takes the former version along."""
    from control_plane.desired import workloads
    from control_plane.store.protocol import Delete

    async def apply(self: Any, *args: Any, **named: Any) -> Any:
        revision, results = await old(self, *args, **named)
        for result in results:
            if result.action == "changed" and result.version > 1:
                id_ = keys.workload_id(result.namespace, result.kind, result.name)
                gone = Delete(keys.VERSIONS + keys.version_id(id_, result.version - 1))
                await self._committer.store.commit(Txn((), (gone,)))
        return revision, results

    old = swap(stack, workloads.WorkloadWriter, "_apply", apply)


# The agent.


def _adopts_by_labels(stack: ExitStack) -> None:
    def owned(self: Ownership, labels: Mapping[str, str]) -> Identity | None:
        if old(self, labels) is not None or ALLOCATION not in labels:
            return old(self, labels)  # type: ignore[no-any-return]
        version, attempt = int(labels[VERSION]), int(labels[ATTEMPT])
        return Identity(labels[CLUSTER], labels[NODE], labels[ALLOCATION], version, attempt)

    old = swap(stack, Ownership, "owned", owned)


def _timeout_is_absence(stack: ExitStack) -> None:
    """A list that the container manager didn't give in time is read as an empty one."""

    class Deaf:
        def __init__(self, driver: Any) -> None:
            self._driver = driver

        def __getattr__(self, name: str) -> Any:
            return getattr(self._driver, name)

        async def list_containers(self, labels: Mapping[str, str]) -> Any:
            try:
                return await self._driver.list_containers(labels)
            except WherryError:
                return []

    def init(self: Any, driver: Any, *args: Any, **named: Any) -> None:
        old(self, Deaf(driver), *args, **named)

    old = swap(stack, agent.watch_runtime.RuntimeWatch, "__init__", init)


def _hints_are_all(stack: ExitStack) -> None:
    """Nothing is listed again: what an event doesn't tell is never seen."""
    swap(stack, agent.watch_runtime, "LIST_EVERY_S", (1e6, 1e6))


def _no_restart_backoff(stack: ExitStack) -> None:
    swap(stack, Backoff, "delay_s", lambda self, failures, rng=None: 0.0)
    swap(stack, agent.tracked, "free_again_s", lambda starts, now_s: 0.0)


def _orphans_ended_early(stack: ExitStack) -> None:
    def end_orphans(self: Any) -> None:
        self._has_full = True
        old(self)

    old = swap(stack, agent.node.Node, "_end_orphans", end_orphans)


def _state_ignored(stack: ExitStack) -> None:
    def load(folder: Any, boot_id: str) -> SavedState:
        return SavedState(boot_id=boot_id, cluster=old(folder, boot_id).cluster)

    old = swap(stack, agent.agent, "load_state", load)


def _stop_ignored(stack: ExitStack) -> None:
    swap(stack, agent.tracked.Tracked, "must_end", property(lambda self: False))


def _silence_is_an_order(stack: ExitStack) -> None:
    """What runs is ended when the session is lost."""

    def begin_session(self: Any) -> None:
        old(self)
        if self.applied_revision:
            for group in list(self._groups.values()):
                self._put(withdrawn(group))
            self._settle(list(self._groups))

    old = swap(stack, agent.node.Node, "begin_session", begin_session)


def _endings_not_awaited(stack: ExitStack) -> None:
    """A container that is being replaced counts as ended when the order to stop it was given."""

    async def stop(self: Any, stop: Any) -> None:
        tracked = self.node.known(stop.container)
        if tracked.container is not None:
            self.node.finish(stop.container, Work.STOP, replace(tracked.container, state="exited", exit_code=0))
        await asyncio.sleep(30.0)

    swap(stack, agent.actions.Actions, "_stop", stop)


AMNESIA = ("agent-kill", "node-reboot", "torn-state", "lost-write", "disk-full")
STALE = ("stale-replica", "connection-reset", "agent-kill", "server-kill", "cut-session")
MUTANTS = (
    Mutant("no-fence", "the leader's writes don't compare its key", _no_fence),
    Mutant("no-compares", "a placement compares nothing of what it rests on", _no_compares_of_placements),
    Mutant("slot-twice", "one slot is placed on two nodes", _slot_placed_twice),
    Mutant("freed-early", "capacity counts as free before the end is observed", _capacity_freed_early),
    Mutant("cordon-ignored", "new work goes to cordoned nodes", _drained_node_used),
    Mutant("job-again", "a job's index that succeeded runs again", _job_forgets_success),
    Mutant("no-reschedule-backoff", "what failed is placed again at once", _no_reschedule_backoff),
    Mutant("removed-early", "records go before the node has said that it ended", _records_removed_early),
    Mutant("lead-blindly", "a conflict of the election is retried blindly", _lead_taken_blindly),
    Mutant("lost-by-lease", "a missing lease makes nodes lost", _lost_by_a_missing_lease),
    Mutant("lost-at-once", "a silent node is lost at once", _silent_is_lost_at_once),
    Mutant("old-session", "the status of an old session is accepted", _statuses_of_old_sessions),
    Mutant("terminal-left", "what has ended may come back", _terminal_phase_left, AMNESIA),
    Mutant(
        "stalled-judge", "a server that stalled counts that time as silence", _stalled_server_judges, ("host-pause",)
    ),
    Mutant("stale-obeyed", "assignments that are older than those obeyed are obeyed", _stale_assignments, STALE),
    Mutant(
        "compaction-skipped",
        "what was compacted away under a watch is skipped",
        _compaction_skipped,
        ("compaction", "container-exit"),
    ),
    Mutant("withdrawn-unsaid", "an agent isn't told what is no longer desired", _withdrawals_not_sent),
    Mutant(
        "blind-retry",
        "a write whose outcome is unknown is sent again blindly",
        _unknown_outcome_retried,
        ("lost-reply", "cut-store"),
    ),
    Mutant("version-gone", "a version is removed while it is in use", _version_removed_early),
    Mutant("no-seal", "containers are adopted by their labels alone", _adopts_by_labels),
    Mutant("timeout-fails", "a container manager that is late counts as empty", _timeout_is_absence, ("manager-hang",)),
    Mutant("no-resync", "an event that is lost is lost for ever", _hints_are_all, ("lost-event", "container-exit")),
    Mutant("no-backoff", "restarts know neither backoff nor pace", _no_restart_backoff),
    Mutant("early-orphans", "orphans are ended before a server said what is desired", _orphans_ended_early, AMNESIA),
    Mutant("state-ignored", "an agent forgets at each start", _state_ignored, AMNESIA[:2]),
    Mutant("stop-ignored", "an order to stop is ignored", _stop_ignored),
    Mutant("silence-orders", "a lost session ends what runs", _silence_is_an_order),
    Mutant("stop-unchecked", "what was told to stop counts as stopped", _endings_not_awaited),
    *OF_DECISIONS,
)
SHORT = (
    *("no-fence", "slot-twice", "freed-early", "old-session", "silence-orders", "no-seal"),
    *("too-few-serve", "freeze-ignored", "old-reasons", "fails-at-once"),
)
