"""Where rollouts stand, and configs, for people. Pure: the API's JSON in, lines out, cleaned."""

from collections.abc import Mapping
from typing import Any

from wherry.cli.text import Style, age, clean, fields

Item = Mapping[str, Any]


def rollout_lines(item: Item, style: Style) -> list[str]:
    """Return where the rollout stands; nothing for what has none."""
    rollout = item.get("rollout")
    if not rollout:
        return []
    target, version = rollout.get("target"), rollout.get("version")
    words = [
        "paused by its user" if rollout.get("paused") else "",
        "stops an old one before it starts a new one" if rollout.get("stopFirst") else "",
    ]
    return [
        "",
        style.paint("Rollout", "bold"),
        *fields(
            style,
            state=rollout.get("state"),
            version=f"{version}" if target == version else f"{version}, but version {target} is what it works towards",
            allocations=f"{rollout.get('updated', 0)} of version {target}, {rollout.get('ready', 0)} of them ready; "
            f"{rollout.get('old', 0)} of other versions",
            last_healthy=f"version {rollout['healthyVersion']}" if rollout.get("healthyVersion") else "none yet",
            message=rollout.get("message"),
            also="; ".join(word for word in words if word),
        ),
    ]


def config_page(item: Item, now_s: float, style: Style) -> list[str]:
    """Return the page of a config, with its content."""
    content = str(((item.get("manifest") or {}).get("spec") or {}).get("data", ""))
    return [
        style.paint(f"config/{clean(item.get('name'))}", "bold"),
        *fields(
            style,
            namespace=item.get("namespace"),
            version=item.get("version"),
            kept="versions " + ", ".join(map(str, item.get("keptVersions") or [])),
            age=age(item.get("createdAt"), now_s),
            used_by=", ".join(map(str, item.get("users") or [])) or "nothing",
        ),
        "",
        style.paint(f"Content ({item.get('bytes')} bytes)", "bold"),
        *(f"  {clean(line)}" for line in content.split("\n")),
    ]
