"""The pages of `wherry describe`. Pure: the API's JSON in, lines out, cleaned."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from wherry.cli.schedule_text import job_lines, lines_of
from wherry.cli.tables import exit_of, memory, ports_of, said_of, times_of
from wherry.cli.text import Style, Table, age, clean, span

Item = Mapping[str, Any]
_LABEL_WIDTH = 14
_PLAIN = Style()


def workload_page(item: Item, allocations: Sequence[Item], now_s: float, style: Style) -> list[str]:
    """Return the page of a service, a daemon, a job or a CronJob."""
    spec, counts = (item.get("manifest") or {}).get("spec") or {}, item.get("counts") or {}
    kind = clean(item.get("kind")).lower()
    lines = [
        style.paint(f"{kind}/{clean(item.get('name'))}", "bold"),
        *_fields(
            style,
            namespace=item.get("namespace"),
            state=item.get("state"),
            version=item.get("version"),
            owner=item.get("owner"),
            age=age(item.get("createdAt"), now_s),
            labels=_pairs(((item.get("manifest") or {}).get("metadata") or {}).get("labels")),
        ),
        "",
        style.paint("Schedule" if item.get("cron") else "Counts", "bold"),
        *(lines_of(item, now_s) if item.get("cron") else [f"  {_counts(counts)}"]),
        "",
        style.paint("Spec", "bold"),
        *_spec_lines(spec),
    ]
    waiting = list(_why_not(item))
    if waiting:
        lines += ["", style.paint("What it waits for", "bold"), *waiting]
    if item.get("cron"):
        return [*lines, "", style.paint("Jobs", "bold"), *job_lines(item, now_s)]
    lines += ["", style.paint("Allocations", "bold")]
    return lines + ([line for a in allocations for line in _allocation_lines(a, now_s, style)] or ["  none"])


def _counts(counts: Item) -> str:
    return ", ".join(f"{value} {clean(name)}" for name, value in counts.items())


def allocation_page(item: Item, _: Sequence[Item], now_s: float, style: Style) -> list[str]:
    """Return the page of an allocation, with the whole reason why it is on this node."""
    owner = f"{clean(item.get('kind')).lower()}/{clean(item.get('name'))}"
    is_stopping = item.get("desired") == "stop"
    lines = [
        style.paint(f"allocation/{clean(item.get('id'))}", "bold"),
        *_fields(
            style,
            of=f"{owner} in {clean(item.get('namespace'))}, version {item.get('version')}, slot {item.get('index')}",
            node=f"{clean(item.get('node'))} ({clean(item.get('nodeState'))})",
            desired=f"{clean(item.get('desired'))}" + (f": {clean(item.get('stopReason'))}" if is_stopping else ""),
            note=item.get("note"),
            replaced=_replaced(item, now_s),
            fence=item.get("fence"),
            phase=item.get("phase"),
            health=item.get("health"),
            message=item.get("message"),
            attempt=f"{item.get('attempt')} (restarts: {item.get('restarts')})",
            age=age(item.get("createdAt"), now_s),
            started=f"{age(item['startedAt'], now_s)} ago" if item.get("startedAt") else "",
            next_attempt=_until(item.get("nextAttemptAt"), now_s),
            reserved=_amounts(item.get("reserved")),
            ports=ports_of(item),
            address=item.get("address"),
            container=clean(item.get("containerId"))[:12],
            replaces=item.get("replaces"),
        ),
    ]
    if item.get("lastEnding"):
        lines += [
            "",
            style.paint("How the last attempt ended", "bold"),
            *_ending_lines(item["lastEnding"], now_s, "  "),
        ]
    return [*lines, "", style.paint("Why this node", "bold"), *_why_lines(item)]


def node_page(item: Item, allocations: Sequence[Item], now_s: float, style: Style) -> list[str]:
    """Return the page of a node."""
    lines = [
        style.paint(f"node/{clean(item.get('name'))}", "bold"),
        *_fields(
            style,
            state=item.get("state"),
            since=f"{age(item.get('changedAt'), now_s)} ago",
            message=item.get("message"),
            address=item.get("address"),
            agent=item.get("agentVersion"),
            server=item.get("server"),
            labels=_pairs(item.get("labels")),
        ),
        "",
        style.paint("Resources", "bold"),
        *("  " + line for line in _resource_table(item)),
        "",
        style.paint("Attributes", "bold"),
        *_attributes(item.get("attributes") or {}),
        "",
        style.paint("Allocations", "bold"),
    ]
    return lines + ([line for a in allocations for line in _allocation_lines(a, now_s, style)] or ["  none"])


def _fields(style: Style = _PLAIN, **fields: object) -> list[str]:
    """Return a line for each field that has a value, names aligned, and a state in its colour."""
    shown = [(name.replace("_", " "), str(value)) for name, value in fields.items() if value not in (None, "")]
    width = max([_LABEL_WIDTH, *(len(name) for name, _ in shown)])
    return [f"  {name.ljust(width)} {style.word(clean(value))}" for name, value in shown]


def _attributes(attributes: Item) -> list[str]:
    """Return them as a table, since their names are anything."""
    rows = [[clean(name), clean(value)] for name, value in sorted(attributes.items())]
    return [f"  {line}" for line in Table(("", ""), _PLAIN).render_rows(rows)]


def _pairs(pairs: Mapping[str, object] | None) -> str:
    return ", ".join(f"{clean(key)}={clean(value)}" for key, value in (pairs or {}).items())


def _amounts(amounts: Item | None) -> str:
    known = amounts or {}
    return f"{known.get('cpu', '?')} cpu, {memory(known.get('memory', '?'))} memory, {known.get('pids', '?')} pids"


def _until(timestamp: object, now_s: float) -> str:
    if not timestamp:
        return ""
    from datetime import datetime

    return f"in {span(datetime.fromisoformat(str(timestamp)).timestamp() - now_s)}"


def _replaced(item: Item, now_s: float) -> str:
    """Return what becomes of an allocation whose node is lost, unless it is back in time."""
    when = _until(item.get("replacedAt"), now_s)
    if when in ("", "in 0s"):
        return ""
    return f"its node {clean(item.get('node'))} is lost; replaced {when} unless it is back"


def _spec_lines(spec: Item) -> list[str]:
    """Return what a reader asks first of a spec; `-o yaml` of get has all of it."""
    command = [*(spec.get("command") or []), *(spec.get("args") or [])]
    limits = {key: value for key, value in (spec.get("limits") or {}).items() if value is not None}
    ports = [
        f"{p.get('name')} {p.get('container')}/{p.get('protocol', 'tcp')}"
        + (f" published at {p['publish']}" if p.get("publish") else "")
        for p in spec.get("ports") or []
    ]
    placement = spec.get("placement") or {}
    return _fields(
        image=spec.get("image"),
        command=" ".join(command),
        replicas=spec.get("replicas"),
        completions=spec.get("completions"),
        parallelism=spec.get("parallelism"),
        retries=spec.get("retries"),
        timeout=spec.get("timeout"),
        start_after=", ".join(_dependency(d) for d in spec.get("startAfter") or []),
        overlap=spec.get("overlap"),
        start_window=spec.get("startWindow"),
        reserves=_amounts(spec.get("resources")),
        limits=_pairs(limits),
        ports=", ".join(ports),
        env=", ".join(spec.get("env") or {}),  # the names alone: values may be secret
        readiness=_check((spec.get("health") or {}).get("readiness")),
        liveness=_check((spec.get("health") or {}).get("liveness")),
        constraints="; ".join(placement.get("constraints") or []),
        spread=", ".join(placement.get("spread") or []),
        update=_pairs(spec.get("update")),
        on_disconnect=_pairs(spec.get("onDisconnect")),
    )


def _dependency(dependency: Item) -> str:
    return ", ".join(
        f"{kind} {clean(dependency[kind])}" for kind in ("job", "service", "daemon") if dependency.get(kind)
    )


def _check(check: Item | None) -> str:
    if not check:
        return ""
    kind = next((k for k in ("http", "tcp", "exec") if check.get(k)), "?")
    what = " ".join(str(v) for v in (check.get(kind) or {}).values() if not isinstance(v, list))
    return f"{kind} {what} every {check.get('interval')}, {check.get('failures')} failures".replace("  ", " ")


def _why_not(item: Item) -> Iterator[str]:
    for message in item.get("messages") or []:
        yield f"  {clean(message)}"
    for blocked in item.get("blocked") or []:
        yield f"  version {blocked.get('version')}: {clean(blocked.get('sentence'))}"
        for detail in _details(blocked):
            yield f"    {detail}"


def _details(holder: Item) -> list[str]:
    """Return each node's reason as a sentence; made of the data where the server sent no sentences."""
    if holder.get("details"):
        return [clean(detail) for detail in holder["details"]]
    from manifests.reasons import Code, Rejection

    known = {str(code) for code in Code}
    return [
        clean(Rejection(r["node"], Code(r["code"]), r.get("needed", ""), r.get("found", "")).sentence())
        if r.get("code") in known
        else clean(f"{r.get('node')}: {r.get('code')}")
        for r in holder.get("rejections") or []
    ]


def _allocation_lines(item: Item, now_s: float, style: Style) -> Iterator[str]:
    phase, health = clean(item.get("phase")), clean(item.get("health"))
    stands = style.word(phase) + (f", {style.word(health)}" if phase == "running" else "")
    restarts = f", {item['restarts']} restarts" if item.get("restarts") else ""
    owner = f"version {item.get('version')}, {age(item.get('createdAt'), now_s)} old"
    yield f"  {clean(item.get('id'))} on {clean(item.get('node'))}: {stands}{restarts} ({owner})"
    if item.get("desired") == "stop":
        yield f"    must stop: {clean(item.get('stopReason'))}"
    if item.get("message"):
        yield f"    {clean(item['message'])}"
    if item.get("note") and item.get("desired") != "stop":
        yield f"    {clean(item['note'])}"
    if item.get("replacedAt"):
        yield f"    {_replaced(item, now_s)}"
    if item.get("ports"):
        yield f"    ports {clean(ports_of(item))}"
    if item.get("whySentence"):
        yield f"    why there: {clean(item['whySentence'])}"
    if item.get("lastEnding"):
        yield from _ending_lines(item["lastEnding"], now_s, "    ", said=clean(item.get("message")))


def _ending_lines(ending: Item, now_s: float, indent: str, *, said: str = "") -> Iterator[str]:
    """Yield how an attempt ended, and the message, unless that has been said."""
    when = age(ending.get("finishedAt"), now_s)
    yield f"{indent}attempt {ending.get('attempt')} ended {when} ago: {exit_of(ending)}"
    message = clean(ending.get("message"))
    if message and message not in said:
        yield f"{indent}{message}"


def _why_lines(item: Item) -> list[str]:
    why = item.get("why") or {}
    if not why:
        return [f"  {clean(item.get('whySentence')) or 'not known'}"]
    parts = ", ".join(f"{clean(name)} {value:.2f}" for name, value in why.get("parts") or [])
    lines = [f"  score {why.get('score', 0):.2f}" + (f" ({parts})" if parts else "")]
    lines += [f"  runner-up {clean(r.get('node'))}: {r.get('score', 0):.2f}" for r in why.get("runnersUp") or []]
    return lines + [f"  ruled out {detail}" for detail in _details(why)]


def _resource_table(item: Item) -> list[str]:
    rows = []
    for name in ("cpu", "memory", "pids"):
        amounts = [(item.get(of) or {}).get(name, "?") for of in ("reserved", "allocatable", "capacity")]
        rows.append([name, *(memory(a) if name == "memory" else clean(a) for a in amounts)])
    return Table(("", "RESERVED", "ALLOCATABLE", "CAPACITY"), Style()).render(rows)


def ended_lines(ended: Sequence[Item], now_s: float, style: Style) -> list[str]:
    """Return how the workload's allocations that are gone have ended, with what they wrote last."""
    return (
        ["", style.paint("Recent ends", "bold"), *(line for a in ended for line in _ended(a, now_s))] if ended else []
    )


def _ended(item: Item, now_s: float) -> Iterator[str]:
    when, ending = f"{clean(item.get('phase'))} {age(item.get('finishedAt'), now_s)} ago", item.get("lastEnding")
    restarts = f", {item['restarts']} restarts" if item.get("restarts") else ""
    why = f": {clean(item['stopReason'])}" if item.get("stopReason") else ""
    owner = f"version {item.get('version')}, slot {item.get('index')}"
    yield f"  {clean(item.get('id'))} on {clean(item.get('node'))}: {when}{restarts} ({owner}){why}"
    if ending:
        yield from _ending_lines(ending, now_s, "    ", said=why)
        yield from (f"      | {clean(line)}" for line in ending.get("logTail") or [])


def event_lines(events: Sequence[Item], now_s: float, style: Style) -> list[str]:
    """Return the events as a table."""
    rows = [
        [f"{age(e.get('at'), now_s)} ago", times_of(e), clean(e.get("subject")), clean(e.get("reason")), said_of(e)]
        for e in events
    ]
    body = Table(("",) * 5, Style()).render_rows(rows)
    return ["", style.paint("Events", "bold"), *(f"  {line}" for line in body or ["none lately"])]
