"""From what the API says of containers to advice for their workloads, in words, and as a patch of manifests. Pure."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from datetime import datetime
from typing import Any, NamedTuple

from manifests.quantities import render_bytes, render_cpu
from wherry.cli.advice import Advice, Finding, Seen, Sizes, advise, merged
from wherry.cli.kinds import Workload
from wherry.cli.tables import memory
from wherry.cli.text import Style, clean, plural, span
from wherry.cli.usage import cpu, percent

Item = Mapping[str, Any]
_KINDS = {"service": "Service", "daemon": "Daemon", "job": "Job"}


class Advised(NamedTuple):
    """One container of a workload: `main` if it is alone."""

    workload: Workload
    container: str
    allocations: int
    reserved: Sizes
    limit: Sizes
    seen: Seen
    advice: Advice


def advised(answer: Item) -> list[Advised]:
    """Return advice for each container of each workload, of its newest version that runs, in order of their names."""
    found: dict[tuple[Workload, str], list[Item]] = {}
    for item in answer.get("items") or []:
        for each in item.get("containers") or []:
            workload = Workload(clean(each["namespace"]), clean(each["kind"]), clean(each["name"]))
            found.setdefault((workload, clean(each["container"])), []).append(each)
    return [_advised(workload, name, found[workload, name]) for workload, name in sorted(found)]


def _advised(workload: Workload, container: str, usages: Sequence[Item]) -> Advised:
    newest = max(each["version"] for each in usages)
    present = [each for each in usages if each["version"] == newest]
    reserved, limit = (_sizes(present[0][key]) for key in ("reserved", "limit"))
    seen = merged(map(_seen, present))
    return Advised(workload, container, len(present), reserved, limit, seen, advise(seen, reserved, limit))


def _sizes(item: Item) -> Sizes:
    return Sizes(item["cpuMillicores"], item["memoryBytes"], item["pids"])


def _seen(item: Item) -> Seen:
    seen_s = max(0.0, _seconds(item["at"]) - _seconds(item["since"]))
    waited = {name: (item.get(f"{name}Pressure") or {}).get("totalSeconds") for name in ("cpu", "memory")}
    # The kernel has counted since the first attempt began, which may be long before the agent saw it.
    began_s = min(_seconds(item[key]) for key in ("since", "startedAt") if item.get(key))
    life_s = max(1.0, _seconds(item["at"]) - began_s)
    shares = {name: None if total is None else min(1.0, total / life_s) for name, total in waited.items()}
    return Seen(
        seen_s=seen_s,
        samples=item["samples"],
        cpu_mean_m=item.get("cpuMeanMillicores"),
        cpu_peak_m=item.get("cpuPeakMillicores"),
        memory_peak_bytes=item["memoryPeakBytes"],
        memory_used_peak_bytes=item.get("memoryUsedPeakBytes"),
        pids_peak=item["pidsPeak"],
        periods=item["periods"],
        throttled_periods=item["throttledPeriods"],
        oom_kills=item["oomKills"],
        cpu_pressure=shares["cpu"],
        memory_pressure=shares["memory"],
    )


def _seconds(time: object) -> float:
    return datetime.fromisoformat(str(time)).timestamp()


def patch_of(all_of_workload: Sequence[Advised]) -> dict[str, Any]:
    """Return what to change in a workload's manifest, empty if nothing: its head, and of its spec only what changes."""
    changed = [each for each in all_of_workload if each.advice.findings]
    if not changed:
        return {}
    workload = changed[0].workload
    parts = {each.container: _resources(each) for each in changed}
    is_alone = list(parts) == ["main"]
    spec = parts["main"] if is_alone else {"containers": [{"name": name, **part} for name, part in parts.items()]}
    return {
        "apiVersion": "wherry/v1",
        "kind": _KINDS.get(workload.kind, workload.kind),
        "metadata": {"name": workload.name, "namespace": workload.namespace},
        "spec": spec,
    }


def _resources(each: Advised) -> dict[str, Any]:
    """Return both amounts of each resource that changes: where a manifest has no limit, it is the reservation."""
    reserved, limit = each.advice.reserved, each.advice.limit
    rendered: dict[str, tuple[Any, Any]] = {
        "cpu": (render_cpu(reserved.cpu_m), render_cpu(limit.cpu_m)),
        "memory": (render_bytes(reserved.memory_bytes), render_bytes(limit.memory_bytes)),
        "pids": (None, limit.pids),
    }
    named = list(dict.fromkeys(finding.resource for finding in each.advice.findings))
    resources = {name: rendered[name][0] for name in named if rendered[name][0] is not None}
    limits = {name: rendered[name][1] for name in named}
    return {**({"resources": resources} if resources else {}), "limits": limits}


def patched(manifest: Item, patch: Item) -> dict[str, Any]:
    """Return the manifest with the patch laid over it; containers are matched by their names."""
    merged: dict[str, Any] = dict(manifest)
    for key, value in patch.items():
        old = merged.get(key)
        if isinstance(value, dict) and isinstance(old, dict):
            merged[key] = patched(old, value)
        elif key == "containers" and isinstance(old, list):
            by_name = {each["name"]: each for each in value}
            merged[key] = [patched(each, by_name.get(each.get("name"), {})) for each in old]
        else:
            merged[key] = value
    return merged


def to_json(each: Advised) -> dict[str, Any]:
    findings = [{**asdict(finding), "sentence": sentence(finding)} for finding in each.advice.findings]
    return {
        "namespace": each.workload.namespace,
        "kind": each.workload.kind,
        "name": each.workload.name,
        "container": each.container,
        "allocations": each.allocations,
        "seen": asdict(each.seen),
        "findings": findings,
        "missing": each.advice.missing,
        "patch": patch_of([each]),
    }


def advice_page(found: Sequence[Advised], style: Style) -> Iterator[str]:
    """Yield what was seen and what would be better of each container, and each workload's patch after them."""
    for workload in dict.fromkeys(each.workload for each in found):
        mine = [each for each in found if each.workload == workload]
        for each in mine:
            yield from _lines(each, style)
        if patch := patch_of(mine):
            yield style.paint("  the patch:", "bold")
            yield from (f"    {line}" for line in _yaml(patch))
        yield ""


def _lines(each: Advised, style: Style) -> Iterator[str]:
    name = str(each.workload) + (f", container {each.container}" if each.container != "main" else "")
    seen = each.seen
    yield f"{style.paint(name, 'bold')}  {plural(each.allocations, 'allocation')}, seen for {span(seen.seen_s)}"
    kills = f", killed {seen.oom_kills}x for memory" if seen.oom_kills else ""
    pressed = _waited(seen.memory_pressure)
    reserved, limit = memory(each.reserved.memory_bytes), memory(each.limit.memory_bytes)
    yield f"  memory  peak {memory(seen.memory_peak_bytes)} of {reserved} reserved, limit {limit}{kills}{pressed}"
    throttled = f", throttled in {percent(seen.throttled_periods, seen.periods)}" if seen.periods else ""
    use = f"mean {cpu(seen.cpu_mean_m)}, peak {cpu(seen.cpu_peak_m)}"
    pressed = _waited(seen.cpu_pressure)
    yield f"  cpu     {use} of {each.reserved.cpu_m}m reserved, limit {each.limit.cpu_m}m{throttled}{pressed}"
    yield f"  pids    peak {seen.pids_peak}, limit {each.limit.pids}"
    for finding in each.advice.findings:
        yield "  " + style.paint("-> " + sentence(finding), "yellow" if finding.is_raise else "green")
    if each.advice.missing:
        yield "  " + style.paint(f"seen too little: {each.advice.missing}", "dim")
    elif not each.advice.findings:
        yield "  " + style.paint("fits as it is", "green")


def _waited(share: float | None) -> str:
    return f", waited {percent(share, 1)} of the time" if share and share >= 0.01 else ""


def sentence(finding: Finding) -> str:
    """Return a finding in words.

    >>> sentence(Finding("memory", "limit", 64 * 2**20, 96 * 2**20, "the kernel killed once for it"))
    'raise the memory limit from 64Mi to 96Mi: the kernel killed once for it'
    """
    verb = "raise" if finding.is_raise else "lower"
    before, after = (_amount(finding.resource, amount) for amount in (finding.before, finding.after))
    return f"{verb} the {finding.resource} {finding.of} from {before} to {after}: {finding.why}"


def _amount(resource: str, amount: int) -> str:
    return render_bytes(amount) if resource == "memory" else render_cpu(amount) if resource == "cpu" else str(amount)


def _yaml(patch: Item) -> list[str]:
    import yaml  # only where there is something to print: it takes long to load

    return yaml.safe_dump(patch, sort_keys=False).splitlines()
