"""What could be moved for the better, on a fork: the aim in a user's words in, moves with reasons out."""

from enum import StrEnum
from typing import Any

from pydantic import Field

from control_plane import keys
from control_plane.controllers.movable import lacking, movable
from control_plane.rehearsal.fork import Fork
from manifests.base import Model
from manifests.errors import ConflictError, NotFoundError
from manifests.moves import MOST_MOVES
from manifests.workloads import Kind
from scheduler.even import even
from scheduler.make_way import make_way
from scheduler.moves import Move, Proposal
from scheduler.rebalance import pack

DEFAULT_MOVES = 20


class Goal(StrEnum):
    PACK = "pack"  # as many empty nodes as can be
    SPREAD = "spread"  # what is to be spread, spread as it would be if it were placed now


class Beneficiary(Model):
    """The workload that room is to be made for."""

    namespace: str
    kind: Kind
    name: str


class Aim(Model):
    """What is to become better; room for a workload comes before any goal."""

    goal: Goal = Goal.PACK
    room_for: Beneficiary | None = Field(None, alias="for")
    max_moves: int = Field(DEFAULT_MOVES, ge=1, le=MOST_MOVES)


def proposed(fork: Fork, aim: Aim) -> Proposal:
    """Return the moves. Raises NotFoundError or ConflictError if there is no such workload, or it lacks no room."""
    state, ledger = fork.state, fork.standing.ledger()
    if aim.room_for is None:
        moved = pack if aim.goal is Goal.PACK else even
        return moved(ledger, movable(state), max_moves=aim.max_moves)
    one = aim.room_for
    record = state.workloads.get(keys.workload_id(one.namespace, one.kind, one.name))
    if record is None:
        raise NotFoundError(f"there is no {one.kind.lower()} {one.name} in namespace {one.namespace}")
    asks = lacking(state, ledger, record)
    if not asks:
        raise ConflictError(
            f"{record.ref} lacks no room",
            why="nothing of it is blocked",
            fix=f"Run `wherry describe {record.ref.kind.lower()} {record.ref.name}` for its state.",
        )
    return make_way(asks, ledger, movable(state), max_moves=aim.max_moves)


def view_of(proposal: Proposal, fork: Fork, aim: Aim) -> dict[str, Any]:
    return {
        "revision": fork.begun_at,
        "underWay": len(fork.state.moves),
        "goal": aim.goal,
        "moves": [_move(move) for move in proposal.moves],
        "freed": list(proposal.freed),
        "rooms": list(proposal.rooms),
        "short": proposal.short,
        "hasMore": proposal.has_more,
    }


def _move(move: Move) -> dict[str, Any]:
    a = move.allocation
    return {
        "allocation": a.id,
        "namespace": a.workload.namespace,
        "kind": a.workload.kind,
        "name": a.workload.name,
        "index": a.index,
        "from": a.node,
        "to": move.to,
        "gain": round(move.gain, 3),
        "why": move.reason,
    }
