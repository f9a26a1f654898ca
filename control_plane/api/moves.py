"""Moves that are wanted: listed, ordered as they were planned, and taken back."""

from typing import Any

from aiohttp import web
from pydantic import Field

from control_plane.api.bodies import json_object, model_of
from control_plane.api.context import context_of
from control_plane.store.protocol import Revision
from manifests.base import Model
from manifests.moves import MOST_MOVES, MoveOrder, MoveRecord


class MovesRequest(Model):
    revision: int = Field(ge=1)  # at which they were planned
    moves: tuple[MoveOrder, ...] = Field(max_length=MOST_MOVES)


async def list_moves(request: web.Request) -> web.Response:
    state = context_of(request).state
    moves = sorted(state.moves.values(), key=lambda move: move.allocation)
    return web.json_response({"revision": state.revision, "items": [view_of(move) for move in moves]})


async def order(request: web.Request) -> web.Response:
    asked = model_of(await json_object(request), MovesRequest)
    revision = await context_of(request).move_writer.order(asked.moves, planned_at=Revision(asked.revision))
    return web.json_response({"revision": revision}, status=202)


async def cancel(request: web.Request) -> web.Response:
    return web.json_response({"revision": await context_of(request).move_writer.cancel()})


def view_of(move: MoveRecord) -> dict[str, Any]:
    ref = move.workload
    return {
        "allocation": move.allocation,
        "namespace": ref.namespace,
        "kind": ref.kind,
        "name": ref.name,
        "from": move.from_node,
        "to": move.to_node,
        "why": move.why,
        "by": move.changed_by,
    }
