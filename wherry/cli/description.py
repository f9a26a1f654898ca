"""The pages of `wherry describe`. Pure: the API's JSON in, lines out, cleaned."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from wherry.cli.rollout_text import rollout_lines
from wherry.cli.schedule_text import job_lines, lines_of
from wherry.cli.tables import exit_of, memory, ports_of, said_of, times_of
from wherry.cli.text import Style, Table, age, clean, fields, span, until

Item = Mapping[str, Any]
_PLAIN = Style()


def workload_page(item: Item, allocations: Sequence[Item], now_s: float, style: Style) -> list[str]:
    """Return the page of a service, a daemon, a job or a CronJob."""
    spec, counts = (item.get("manifest") or {}).get("spec") or {}, item.get("counts") or {}
    kind = clean(item.get("kind")).lower()
    lines = [
        style.paint(f"{kind}/{clean(item.get('name'))}", "bold"),
        *fields(
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
        *rollout_lines(item, style),
        "",
        style.paint("Spec", "bold"),
        *_spec_lines(spec, item.get("images") or {}),
    ]
    waiting = list(_why_not(item))
    if waiting:
        lines += ["", style.paint("What it waits for", "bold"), *waiting]
    if item.get("cron"):
        return [*lines, "", style.paint("Jobs", "bold"), *job_lines(item, now_s)]
    lines += ["", style.paint("Allocations", "bold")]
    digests = item.get("images") or {}
    for allocation in allocations:
        lines += _allocation_lines(allocation, now_s, style)
        if allocation.get("version") == item.get("version"):
            lines += _other_images(allocation, digests)
    return lines if allocations else [*lines, "  none"]


def _counts(counts: Item) -> str:
    return ", ".join(f"{value} {clean(name)}" for name, value in counts.items())


def allocation_page(item: Item, _: Sequence[Item], now_s: float, style: Style) -> list[str]:
    """Return the page of an allocation, with the whole reason why it is on this node."""
    owner = f"{clean(item.get('kind')).lower()}/{clean(item.get('name'))}"
    is_stopping = item.get("desired") == "stop"
    lines = [
        style.paint(f"allocation/{clean(item.get('id'))}", "bold"),
        *fields(
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
            crash_loop=f"{item.get('failures')} failures in a row" if item.get("crashLooping") else "",
            age=age(item.get("createdAt"), now_s),
            started=f"{age(item['startedAt'], now_s)} ago" if item.get("startedAt") else "",
            next_attempt=until(item.get("nextAttemptAt"), now_s),
            reserved=_amounts(item.get("reserved")),
            ports=ports_of(item),
            address=item.get("address"),
            container=clean(item.get("containerId"))[:12],
            images=", ".join(_image(image, item["images"]) for image in item.get("images") or {}),
            replaces=item.get("replaces"),
        ),
    ]
    if item.get("lastEnding"):
        lines += [
            "",
            style.paint("How the last attempt ended", "bold"),
            *_ending_lines(item["lastEnding"], now_s, "  "),
        ]
    if item.get("containers"):
        lines += ["", style.paint("Containers", "bold")]
        lines += [line for container in item["containers"] for line in _container_lines(container, "  ", style)]
    return [*lines, "", style.paint("Why this node", "bold"), *_why_lines(item)]


def node_page(item: Item, allocations: Sequence[Item], now_s: float, style: Style) -> list[str]:
    """Return the page of a node."""
    lines = [
        style.paint(f"node/{clean(item.get('name'))}", "bold"),
        *fields(
            style,
            state=item.get("state"),
            since=f"{age(item.get('changedAt'), now_s)} ago",
            message=item.get("message"),
            brake=_brake(item, now_s),
            drain_deadline=item.get("drainDeadline"),
            taints=", ".join(item.get("taints") or []),
            address=item.get("address"),
            agent=item.get("agentVersion"),
            server=item.get("server"),
            labels=_pairs(item.get("labels")),
            metadata=_pairs(item.get("metadata")),
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


def _brake(item: Item, now_s: float) -> str:
    """Return that the brake on mass loss keeps the node from being called lost, if it does."""
    brake = item.get("brake")
    if not brake:
        return ""
    end = f"`wherry node confirm-lost {item.get('name')}` ends that for this node"
    return f"on for {age(brake.get('since'), now_s)}: it isn't called lost for {_left(brake, now_s)} more; {end}"


def _left(brake: Item, now_s: float) -> str:
    from datetime import datetime

    return span(datetime.fromisoformat(str(brake.get("until"))).timestamp() - now_s)


def _attributes(attributes: Item) -> list[str]:
    """Return them as a table, since their names are anything."""
    rows = [[clean(name), clean(value)] for name, value in sorted(attributes.items())]
    return [f"  {line}" for line in Table(("", ""), _PLAIN).render_rows(rows)]


def _pairs(pairs: Mapping[str, object] | None) -> str:
    return ", ".join(f"{clean(key)}={clean(value)}" for key, value in (pairs or {}).items())


def _amounts(amounts: Item | None) -> str:
    known = amounts or {}
    return f"{known.get('cpu', '?')} cpu, {memory(known.get('memory', '?'))} memory, {known.get('pids', '?')} pids"


def _replaced(item: Item, now_s: float) -> str:
    """Return what becomes of an allocation whose node is lost, unless it is back in time."""
    when = until(item.get("replacedAt"), now_s)
    if when in ("", "in 0s"):
        return ""
    return f"its node {clean(item.get('node'))} is lost; replaced {when} unless it is back"


def _image(image: object, digests: Item) -> str:
    """Return the image as the manifest has it, with the digest that it has for the version, once that is known."""
    digest = clean(digests.get(str(image)))
    return f"{clean(image)} at {digest}" if digest else clean(image)


def _other_images(item: Item, digests: Item) -> Iterator[str]:
    """Yield what an allocation runs otherwise than its version says: it could not wait to be told."""
    for image, digest in (item.get("images") or {}).items():
        if digests.get(image) not in (None, digest):
            yield f"    runs {clean(image)} at {clean(digest)}, until its next start"


def _spec_lines(spec: Item, digests: Item) -> list[str]:
    """Return what a reader asks first of a spec; `-o yaml` of get has all of it."""
    command = [*(spec.get("command") or []), *(spec.get("args") or [])]
    limits = {key: value for key, value in (spec.get("limits") or {}).items() if value is not None}
    ports = [
        f"{p.get('name')} {p.get('container')}/{p.get('protocol', 'tcp')}"
        + (f" published at {p['publish']}" if p.get("publish") else "")
        for p in spec.get("ports") or []
    ]
    placement = spec.get("placement") or {}
    is_group = bool(spec.get("containers"))
    return fields(
        image=_image(spec.get("image") or "", digests),
        command=" ".join(command),
        replicas=spec.get("replicas"),
        completions=spec.get("completions"),
        parallelism=spec.get("parallelism"),
        retries=spec.get("retries"),
        timeout=spec.get("timeout"),
        start_after=", ".join(_dependency(d) for d in spec.get("startAfter") or []),
        overlap=spec.get("overlap"),
        start_window=spec.get("startWindow"),
        reserves="" if is_group else _amounts(spec.get("resources")),
        limits=_pairs(limits),
        ports=", ".join(ports),
        env=", ".join(spec.get("env") or {}),  # the names alone: values may be secret
        startup=_check((spec.get("health") or {}).get("startup")),
        readiness=_check((spec.get("health") or {}).get("readiness")),
        liveness=_check((spec.get("health") or {}).get("liveness")),
        constraints="; ".join(placement.get("constraints") or []),
        affinities="; ".join(map(_affinity, placement.get("affinities") or [])),
        apart=", ".join(map(_neighbour, placement.get("apart") or [])),
        together=", ".join(map(_neighbour, placement.get("together") or [])),
        spread="; ".join(map(_spread, placement.get("spread") or [])),
        max_per_node=placement.get("maxPerNode"),
        priority=spec.get("priority"),
        preempts="no" if spec.get("preempts") is False else "",
        update=_pairs(spec.get("update")),
        init_containers="; ".join(_member(member, digests) for member in spec.get("initContainers") or []),
        containers="; ".join(_member(member, digests) for member in spec.get("containers") or []),
        on_disconnect=_pairs(spec.get("onDisconnect")),
    )


def _spread(spread: str | Item) -> str:
    if isinstance(spread, str):
        return clean(spread)
    shares = _pairs({value: f"{percent}%" for value, percent in (spread.get("shares") or {}).items()})
    skew = f"max skew {spread['maxSkew']}" if spread.get("maxSkew") else ""
    return " ".join(filter(None, (clean(spread.get("over")), shares, skew)))


def _affinity(affinity: Item) -> str:
    about = clean(affinity.get("constraint") or "") or f"near {_neighbour(affinity.get('near') or {})}"
    return f"{about} ({affinity.get('weight'):+d})"


def _neighbour(neighbour: Item) -> str:
    over = neighbour.get("over") or "node.name"
    return _dependency(neighbour) + ("" if over == "node.name" else f" over {clean(over)}")


def _dependency(dependency: Item) -> str:
    return ", ".join(
        f"{kind} {clean(dependency[kind])}" for kind in ("job", "service", "daemon") if dependency.get(kind)
    )


def _member(spec: Item, digests: Item) -> str:
    """Return one container of a group in short."""
    sidecar = ", a sidecar" if spec.get("sidecar") else ""
    return (
        f"{clean(spec.get('name'))} ({_image(spec.get('image'), digests)}, {_amounts(spec.get('resources'))}{sidecar})"
    )


def _check(check: Item | None) -> str:
    if not check:
        return ""
    kind = next((k for k in ("http", "tcp", "grpc", "exec") if check.get(k)), "?")
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
    restarts += f", {item.get('failures')} failures in a row" if item.get("crashLooping") else ""
    restarts += f", next attempt {until(item['nextAttemptAt'], now_s)}" if item.get("nextAttemptAt") else ""
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
    for container in item.get("containers") or []:
        yield from _container_lines(container, "    ", style)
    if item.get("whySentence"):
        yield f"    why there: {clean(item['whySentence'])}"
    if item.get("lastEnding"):
        yield from _ending_lines(item["lastEnding"], now_s, "    ", said=clean(item.get("message")))


def _container_lines(item: Item, indent: str, style: Style) -> Iterator[str]:
    """Yield how one container of a group is, with why where it isn't well."""
    phase, ending = clean(item.get("phase")), item.get("lastEnding")
    stands = style.word(phase) + (f", {style.word(clean(item.get('health')))}" if phase == "running" else "")
    attempt = item.get("attempt") or 1
    restarts = f", {attempt - 1} restarts" if attempt > 1 else ""
    ended = f", last {exit_of(ending)}" if ending else ""
    yield f"{indent}container {clean(item.get('name'))}: {stands}{restarts}{ended}"
    if item.get("message"):
        yield f"{indent}  {clean(item['message'])}"


def _ending_lines(ending: Item, now_s: float, indent: str, *, said: str = "") -> Iterator[str]:
    """Yield how an attempt ended, and the message, unless that has been said."""
    when = age(ending.get("finishedAt"), now_s)
    whose = f" of container {clean(ending['container'])}" if ending.get("container") else ""
    yield f"{indent}attempt {ending.get('attempt')}{whose} ended {when} ago: {exit_of(ending)}"
    message = clean(ending.get("message"))
    if message and message not in said:
        yield f"{indent}{message}"
    for line in ending.get("logTail") or []:
        yield f"{indent}| {clean(line)}"


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
    held, allocatable, capacity = (item.get(of) or {} for of in ("reserved", "allocatable", "capacity"))
    for name in ("cpu", "memory", "pids", "disk"):
        amounts = [of.get(name, "?") for of in (held, allocatable, capacity)]
        rows.append([name, *(memory(a) if name in ("memory", "disk") else clean(a) for a in amounts)])
    devices = [of.get("devices") or {} for of in (held, allocatable, capacity)]
    rows += [[clean(kind), *(str(of.get(kind, 0)) for of in devices)] for kind in devices[1]]
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
