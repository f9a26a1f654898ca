"""Reads what callers send: JSON bodies, manifests within them, and parameters of the query. All bounded and checked."""

import json
from typing import Any, TypeVar

from aiohttp import web
from pydantic import ValidationError

from control_plane import keys
from control_plane.store.protocol import Revision
from manifests.base import Model
from manifests.documents import invalid, read_document
from manifests.errors import UsageError
from manifests.problems import Problem, problems_of
from manifests.workloads import Document

M = TypeVar("M", bound=Model)

MOST_BODY_BYTES = 3 * 2**20


async def json_object(request: web.Request) -> dict[str, Any]:
    """Return the body's object. Raises UsageError if it is anything else."""
    try:
        body = json.loads(await request.read())
    except (ValueError, RecursionError):
        raise UsageError("the body is not JSON", fix="Send a JSON object.") from None
    if not isinstance(body, dict):
        raise UsageError("the body is not a JSON object", fix='Send for example {"replicas": 3}.')
    return body


def model_of(body: dict[str, Any], model: type[M]) -> M:
    """Return the body as that model. Raises InvalidError, which names each wrong field."""
    try:
        return model.model_validate(body, by_name=False, by_alias=True)
    except ValidationError as error:
        raise invalid(problems_of(error, model), "the request") from error


def documents_of(documents: object) -> list[Document]:
    """Return the manifests as models. Raises InvalidError with every problem of every document."""
    if not isinstance(documents, list) or not documents:
        raise UsageError("there is nothing to apply", fix='Send {"documents": [MANIFEST, ...]}.')
    found: dict[str, Document] = {}
    problems: list[Problem] = []
    for number, document in enumerate(documents):
        read = read_document(document)
        if isinstance(read, list):
            problems += [fault.problem(number) for fault in read]
            continue
        key = keys.id_of_metadata(read.kind, read.metadata)
        if key in found:
            problems.append(Problem(number, "metadata.name", f"{key} is there twice"))
        found[key] = read
    if problems:
        raise invalid(problems, f"document {problems[0].document + 1}" if len(documents) > 1 else "")
    return list(found.values())


def expected_revision(request: web.Request) -> Revision | None:
    """Return the revision in If-Match, if there is one."""
    text = request.headers.get("If-Match", "").strip().strip('"')
    if not text or text == "*":
        return None
    if not text.isascii() or not text.isdigit() or len(text) > 18:
        raise UsageError(f"If-Match: {text[:40]} is not a revision", fix="Send the revision that you read.")
    return Revision(int(text))


def whole_number(request: web.Request, name: str, *, most: int) -> int | None:
    """Return a parameter of the query, from 0 on, or None if it isn't there."""
    text = request.query.get(name)
    if text is None:
        return None
    if not text.isascii() or not text.isdigit() or len(text) > 18 or int(text) > most:
        raise UsageError(f"{name}={text[:40]} is not a whole number up to {most}")
    return int(text)


def flag(request: web.Request, name: str) -> bool:
    text = request.query.get(name, "false").lower()
    if text not in ("true", "false", "1", "0", ""):
        raise UsageError(f"{name}={text[:40]} is neither true nor false")
    return text in ("true", "1", "")
