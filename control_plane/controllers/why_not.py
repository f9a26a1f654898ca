"""What `explain` is asked of: a workload's next allocation, or one that runs as if it were placed anew now. Pure.

It asks the scheduler as the leader does, on the cluster of this moment. The leader decides besides whether anything is
to be placed at all: it waits for dependencies, for a rollout's turn, or for a freeze to end.
"""

from collections.abc import Collection

from control_plane import keys
from control_plane.controllers.asks import ask_of, resolved
from control_plane.controllers.failing import FAILING, failing_of
from control_plane.controllers.freeze import is_frozen
from control_plane.controllers.standing import Standing
from control_plane.settings import rules_of
from control_plane.state import ClusterState
from manifests.allocations import Allocation, Desired
from manifests.explanations import Explanation
from manifests.workloads import Kind, WorkloadRecord, with_template_of
from scheduler.explain import explain
from scheduler.ledger import Ledger


def explain_workload(
    state: ClusterState, standing: Standing, record: WorkloadRecord, node: str | None = None
) -> Explanation:
    """Explain one more of it: anywhere, or on that node. Of a daemon, one on each node that has none."""
    workload = keys.id_of_ref(record.ref)
    wanted = [a for a in state.allocations_of(workload) if a.desired is Desired.RUN]
    taken = {a.index for a in wanted}
    index = next(i for i in range(len(taken) + 1) if i not in taken)
    said = state.workload_statuses.get(workload)
    version = said.blocked[0].version if said and said.ref.uid == record.uid and said.blocked else record.version
    ledger = standing.ledger()
    if node is not None or record.ref.kind is not Kind.DAEMON:
        return _explained(state, ledger, _at_version(state, record, version), index, among=_only(node))
    lacking = ledger.nodes.rows.keys() - {a.node for a in wanted}
    return _explained(state, ledger, _at_version(state, record, version), index, among=lacking, is_for_each=True)


def explain_allocation(
    state: ClusterState, standing: Standing, allocation: Allocation, node: str | None = None
) -> Explanation:
    """Explain where it would go if it were placed now, and what it holds were free; or why not on that node."""
    record = state.workloads.get(keys.id_of_ref(allocation.workload))
    if record is None or record.uid != allocation.workload.uid:
        return Explanation(note="its workload is gone: it would not be placed again")
    ledger = standing.ledger().fork()
    ledger.drop(allocation.node, allocation.id)
    own = allocation.node if allocation.workload.kind is Kind.DAEMON and node is None else None
    version = _at_version(state, record, allocation.version)
    return _explained(state, ledger, version, allocation.index, among=_only(node), only_node=own)


def _only(node: str | None) -> Collection[str] | None:
    return None if node is None else (node,)


def _at_version(state: ClusterState, record: WorkloadRecord, version: int) -> WorkloadRecord:
    """Return the record as it is for allocations of that version; as it is now if that one isn't kept."""
    kept = state.versions.get(keys.version_id(keys.id_of_ref(record.ref), version))
    if version == record.version or kept is None or kept.uid != record.uid:
        return record
    return record.model_copy(
        update={"version": version, "workload": with_template_of(record.workload, kept.workload.spec)}
    )


def _explained(
    state: ClusterState,
    ledger: Ledger,
    record: WorkloadRecord,
    index: int,
    *,
    among: Collection[str] | None,
    only_node: str | None = None,
    is_for_each: bool = False,
) -> Explanation:
    [ask] = resolved([ask_of(record, [index], only_node=only_node)], state)
    forbids = _who_forbids(state, record)
    return explain(ask, ledger, seed=ledger.revision, among=among, is_for_each=is_for_each, forbids=forbids)


def _who_forbids(state: ClusterState, record: WorkloadRecord) -> str:
    """Return why the leader evicts nothing for the workload now; nothing if it may."""
    rules = rules_of(state, record)
    if not rules.preempts:
        return f"preempts is false ({rules.preempts_of.words})"
    if is_frozen(state):
        return "the cluster is frozen"
    return FAILING if failing_of(state, [record.ref], state.clock.wall_s()) else ""
