"""What would be, if manifests were applied and nodes lost, drained or added; and what would be better elsewhere."""

from typing import Literal

from aiohttp import web
from pydantic import Field

from control_plane.api.bodies import documents_of, json_object, model_of
from control_plane.api.context import context_of
from control_plane.rehearsal import views
from control_plane.rehearsal.proposal import Aim
from control_plane.rehearsal.question import Question
from control_plane.store.protocol import Revision
from manifests.base import Model

MOST_WORDS = 10_000


class RehearsalRequest(Model):
    documents: tuple[object, ...] = ()
    lose: tuple[str, ...] = Field((), max_length=MOST_WORDS)
    drain: tuple[str, ...] = Field((), max_length=MOST_WORDS)
    add: tuple[str, ...] = Field((), max_length=100)
    at_revision: int | None = Field(None, ge=1)


class RebalanceRequest(Aim):
    dry_run: Literal[True]
    at_revision: int | None = Field(None, ge=1)


async def rehearse(request: web.Request) -> web.Response:
    asked = model_of(await json_object(request), RehearsalRequest)
    context = context_of(request)
    documents = documents_of(list(asked.documents)) if asked.documents else []
    question = Question(asked.lose, asked.drain, asked.add)
    at_revision = Revision(asked.at_revision) if asked.at_revision is not None else None
    answer = await context.rehearser.answer(question, documents, at_revision=at_revision)
    cluster = context.state.cluster.get("")
    which = {"cluster": cluster.id if cluster else "", "generation": context.state.generation}
    return web.json_response({**which, **views.answer(answer)})


async def rebalance(request: web.Request) -> web.Response:
    asked = model_of(await json_object(request), RebalanceRequest)
    at_revision = Revision(asked.at_revision) if asked.at_revision is not None else None
    return web.json_response(await context_of(request).rehearser.propose(asked, at_revision=at_revision))
