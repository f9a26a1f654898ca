"""Settings of namespaces and of the cluster, for people. Pure: the API's JSON in, lines out, cleaned."""

from collections.abc import Mapping
from typing import Any

from wherry.cli.text import Style, age, clean, fields

Item = Mapping[str, Any]


def settings_page(item: Item, now_s: float, style: Style) -> list[str]:
    """Return the page of a namespace, or of the cluster's settings."""
    is_cluster = item.get("kind") == "Cluster"
    title = "cluster" if is_cluster else f"namespace/{clean(item.get('name'))}"
    since = f"{age(item.get('createdAt'), now_s)}, by {clean(item.get('changedBy')) or 'somebody'}"
    return [
        style.paint(title, "bold"),
        *fields(
            style,
            settings=f"its own, age {since}" if item.get("hasSettings") else "none: the defaults hold",
            policy=item.get("policy") or "",
            preempts="yes" if item.get("preempts", True) else "no",
            isolation=item.get("isolation") or "",
            workloads="" if is_cluster else item.get("workloads"),
            configs="" if is_cluster else item.get("configs"),
        ),
    ]
