"""A frozen cluster: the leader looks and plans, and says what it would do, but does nothing of it. Pure.

Nodes are watched over as always, and agents restart in place what fails. What users change is stored, and has its
effect once the cluster is unfrozen. Each transaction of the leader compares that there is no freeze, so that none that
was decided on before comes after it.
"""

from dataclasses import replace

from control_plane import keys
from control_plane.controllers.decision import Decision
from control_plane.state import ClusterState
from control_plane.store.protocol import ABSENT, ModifiedAt
from manifests.status import WorkloadStatus
from scheduler.model import Plan

NOT_FROZEN = ModifiedAt(keys.FREEZE, ABSENT)


def is_frozen(state: ClusterState) -> bool:
    """Say whether somebody has frozen the cluster, also if their words can't be read."""
    return state.freeze.get("") is not None or state.is_unreadable(keys.FREEZE)


def held_back(decision: Decision, plan: Plan, workload: str, said: WorkloadStatus | None) -> Decision:
    """Return the decision without what it does, and with a sentence about that; where a rollout stands is left."""
    placements = sum(keys.id_of_ref(p.workload) == workload for p in plan.placements)
    parts = [
        *([f"{len(decision.stops)} to be stopped"] if decision.stops else []),
        *([f"{placements} to be placed"] if placements else []),
        *([f"{len(decision.adoptions)} to be taken over"] if decision.adoptions else []),
        *(["its next job is due"] if decision.new_slot else []),
    ]
    message = (f"the cluster is frozen: {' and '.join(parts)} once it is unfrozen",) if parts else ()
    return replace(decision, messages=(*message, *decision.messages), rollout=said.rollout if said else None)
