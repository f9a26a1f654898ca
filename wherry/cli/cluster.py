"""What `wherry get cluster` prints: who leads, at which revision, and what keeps the leader from acting."""

import json
import sys
from collections.abc import Mapping
from typing import Any

from manifests.errors import UsageError
from wherry.cli.text import Table, clean, style_of
from wherry.cli.transport import Transport
from wherry.cli.yaml_output import print_yaml

_HEADINGS = ("CLUSTER", "LEADER", "VERSION", "REVISION", "STATE", "MESSAGE")


def print_cluster(transport: Transport, output: str) -> None:
    """Print it once. Raises UsageError for a format that makes no sense here."""
    answer: dict[str, Any] = transport.get("/v1/cluster")
    if output == "json":
        print(json.dumps(answer, indent=2, ensure_ascii=True))
    elif output == "yaml":
        print_yaml([answer["settings"]])
    elif output in ("table", "wide"):
        print("\n".join(Table(_HEADINGS, style_of(sys.stdout), is_cut=output != "wide").render([_row(answer)])))
    else:
        raise UsageError("there is one cluster only, which needs no name", fix="Use -o json.")


def settings_words(settings: Mapping[str, Any]) -> list[str]:
    """Return what isn't as by default, in words."""
    policy = clean(settings.get("policy") or "pack")
    return [
        *([f"policy {policy}"] if policy != "pack" else []),
        *(["nothing is evicted"] if settings.get("preempts") is False else []),
    ]


def _row(answer: Mapping[str, Any]) -> list[str]:
    frozen, brake = answer.get("frozen"), answer.get("brake")
    said = []
    if frozen:
        by = f", by {frozen['by']}" if frozen.get("by") else ""
        reason = f": {frozen['reason']}" if frozen.get("reason") else ""
        said.append(f"frozen since {frozen.get('since')}{by}{reason}")
    if brake:
        said.append(str(brake.get("sentence")))
    said += settings_words(answer.get("settings") or {})
    leader = answer.get("leader") or "none"
    state = "frozen" if frozen else "braked" if brake else "well" if answer.get("leader") else "leaderless"
    cells = (answer.get("cluster"), leader, answer.get("version"), answer.get("revision"), state, "; ".join(said))
    return [clean(cell) for cell in cells]
