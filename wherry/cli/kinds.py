"""The kinds that a user may name, under all their names, and how `kind/name` is read.

Pure; imports nothing heavy. All commands that take a kind or a target call this.
"""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from manifests.errors import UsageError

NODES, SERVICES, DAEMONS, JOBS, CRON_JOBS = "nodes", "services", "daemons", "jobs", "cronjobs"
WORKLOADS, ALLOCATIONS, EVENTS, SERVERS = "workloads", "allocations", "events", "servers"
CLUSTER = "cluster"
CONFIGS = "configs"
NAMESPACES = "namespaces"
VOLUMES = "volumes"
NOWHERE = "-"  # in place of a namespace, of what is in none

_NAMES = {
    NODES: ("nodes", "node", "no"),
    SERVICES: ("services", "service", "svc"),
    DAEMONS: ("daemons", "daemon"),
    JOBS: ("jobs", "job"),
    CRON_JOBS: ("cronjobs", "cronjob", "cj"),
    WORKLOADS: ("workloads", "workload", "wl"),
    ALLOCATIONS: ("allocations", "allocation", "alloc", "allocs"),
    EVENTS: ("events", "event", "ev"),
    SERVERS: ("servers", "server"),
    CLUSTER: ("cluster",),
    CONFIGS: ("configs", "config", "cfg"),
    NAMESPACES: ("namespaces", "namespace", "ns"),
    VOLUMES: ("volumes", "volume", "vol"),
}
_KIND_OF = {name: kind for kind, names in _NAMES.items() for name in names}
WORKLOAD_KINDS = {SERVICES: "service", DAEMONS: "daemon", JOBS: "job", CRON_JOBS: "cronjob"}  # as in the API's paths


class Target(NamedTuple):
    """One kind, and the names of that kind which the user asked for; no names: all of them."""

    kind: str
    names: tuple[str, ...]


class Workload(NamedTuple):
    """One workload by its path in the API."""

    namespace: str
    kind: str  # service, daemon, job or cronjob
    name: str

    @property
    def path(self) -> str:
        return f"/v1/workloads/{self.namespace}/{self.kind}/{self.name}"

    def __str__(self) -> str:
        is_plain = self.namespace in ("default", NOWHERE)
        return f"{self.kind}/{self.name}" if is_plain else f"{self.kind}/{self.namespace}/{self.name}"


def kind_of(word: str) -> str:
    """Return the kind that the word names. Raises UsageError with the nearest kind.

    >>> kind_of("svc"), kind_of("Node")
    ('services', 'nodes')
    """
    kind = _KIND_OF.get(word.lower())
    if kind is None:
        raise UsageError(
            f"there is no kind '{word}'{did_you_mean(word, _KIND_OF)}", fix=f"Kinds are {', '.join(_NAMES)}."
        )
    return kind


def read_targets(words: Sequence[str]) -> list[Target]:
    """Return what `KIND [NAME...]` or `KIND/NAME...` asks for, grouped by kind in the order given.

    >>> read_targets(["svc", "web", "api"])
    [Target(kind='services', names=('web', 'api'))]
    >>> read_targets(["service/web", "job/mail"])
    [Target(kind='services', names=('web',)), Target(kind='jobs', names=('mail',))]
    """
    first = words[0]
    if "/" not in first:
        return [Target(kind_of(first), tuple(words[1:]))]
    grouped: dict[str, list[str]] = {}
    for word in words:
        kind, slash, name = word.partition("/")
        if not slash or not name:
            raise UsageError(
                f"'{word}' is not KIND/NAME", fix="Write each as service/web, or the kind once: service web."
            )
        grouped.setdefault(kind_of(kind), []).append(name)
    return [Target(kind, tuple(names)) for kind, names in grouped.items()]


def read_one(words: Sequence[str]) -> tuple[str, str]:
    """Return the kind and the name of exactly one thing, from `KIND NAME` or `KIND/NAME`; there is one `cluster`."""
    if list(words) == [CLUSTER]:
        return CLUSTER, CLUSTER
    targets = read_targets(words)
    if len(targets) != 1 or len(targets[0].names) != 1:
        raise UsageError(f"'{' '.join(words)}' is not one KIND and one NAME", fix="Write for example: service web")
    return targets[0].kind, targets[0].names[0]


def read_workload(words: Sequence[str], namespace: str) -> Workload:
    """Return the workload that `KIND NAME`, `KIND/NAME` or `KIND/NAMESPACE/NAME` names."""
    kind, name = read_one(words)
    if kind not in WORKLOAD_KINDS:
        raise UsageError(f"{kind} aren't workloads", fix="Name a service, daemon, job or cronjob, such as service/web.")
    given, slash, rest = name.partition("/")
    return Workload(given, WORKLOAD_KINDS[kind], rest) if slash else Workload(namespace, WORKLOAD_KINDS[kind], name)


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """Return `; did you mean 'x'?` for the nearest known word, or nothing when none is near."""
    from difflib import get_close_matches  # only when something was mistyped

    words = list(known)
    begun = [w for w in words if word and w.startswith(word.lower())]
    near = begun[:1] or get_close_matches(word.lower(), words, n=1, cutoff=0.5)
    return f"; did you mean '{near[0]}'?" if near else ""
