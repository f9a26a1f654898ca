"""What `wherry get servers` prints: the servers, the store below them, and what is wrong with its version."""

import json
import sys
import time
from collections.abc import Mapping, Sequence
from typing import Any

from manifests.errors import UsageError
from wherry.cli.tables import memory
from wherry.cli.text import Table, age, clean, say, style_of
from wherry.cli.transport import Transport

_SERVERS = ("NAME", "ROLE", "VERSION", "AGENTS", "AGE", "URL")
_STORE = ("STORE", "ROLE", "VERSION", "SIZE", "STATE")


def print_servers(transport: Transport, output: str) -> None:
    """Print them once. Raises UsageError for a format that makes no sense here."""
    answer: dict[str, Any] = transport.get("/v1/servers")
    if output == "json":
        print(json.dumps(answer, indent=2, ensure_ascii=True))
    elif output == "name":
        print("\n".join(f"server/{clean(item.get('name'))}" for item in answer["items"]))
    elif output in ("table", "wide"):
        _print_table(_SERVERS, [_server(item, time.time()) for item in answer["items"]], output)
        print()
        _print_table(_STORE, [_member(member) for member in answer["store"]], output)
        for text in warnings_of(answer["store"]):
            say(f"warning: {text}")
    else:
        raise UsageError("servers aren't written as manifests", fix="Use -o json.")


def warnings_of(members: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return one sentence for each known defect, however many members have it."""
    return [f"etcd {clean(text)}" for text in dict.fromkeys(w for m in members for w in m.get("warnings") or ())]


def _print_table(headings: Sequence[str], rows: list[list[str]], output: str) -> None:
    print("\n".join(Table(list(headings), style_of(sys.stdout), is_cut=output != "wide").render(rows)))


def _server(item: Mapping[str, Any], now_s: float) -> list[str]:
    role = "leader" if item.get("isLeader") else "follower"
    cells = (item.get("name"), role, item.get("version"), item.get("agents"))
    return [*map(clean, cells), age(item.get("startedAt"), now_s), clean(item.get("url"))]


def _member(member: Mapping[str, Any]) -> list[str]:
    why, size = clean(member.get("why")), member.get("databaseBytes") or 0
    role = "leader" if member.get("isLeader") else "follower" if member.get("version") else "-"
    return [
        clean(member.get("endpoint")),
        role,
        clean(member.get("version")) or "-",
        memory(f"{size}") if size else "-",
        f"unhealthy: {why}" if why else "healthy",
    ]
