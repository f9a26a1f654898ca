"""Plan files: what `wherry plan -o json` writes, and of that what `wherry apply --plan` sends."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from manifests.errors import InvalidError, NotFoundError, WherryError

FORMAT = 1
_CHECKED = ("cluster", "generation", "revision", "at", "placements")  # what the server holds the cluster against


def plan_file(documents: Sequence[Mapping[str, Any]], answer: Mapping[str, Any]) -> str:
    return json.dumps({"wherryPlan": FORMAT, "documents": list(documents), **answer}, indent=2, ensure_ascii=True)


def read_plan(path: str) -> dict[str, Any]:
    """Return the documents and what must still hold. Raises InvalidError if the file is no plan."""
    try:
        with open(path, encoding="utf-8") as file:
            data = json.load(file)
    except FileNotFoundError as error:
        raise NotFoundError(f"there is no file {path}") from error
    except (ValueError, RecursionError) as error:
        raise InvalidError(f"{path} is not a plan", why="it is not JSON", fix=_FIX) from error
    except OSError as error:
        raise WherryError(f"cannot read {path}", why=error.strerror or str(error)) from error
    if not isinstance(data, dict) or data.get("wherryPlan") != FORMAT or not isinstance(data.get("documents"), list):
        raise InvalidError(f"{path} is not a plan of this version", fix=_FIX)
    return {"documents": data["documents"], "plan": {name: data.get(name) for name in _CHECKED}}


_FIX = "Make one with `wherry plan -f FILE -o json > web.plan`."
