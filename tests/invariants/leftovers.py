"""L11: once a workload is deleted, nothing tells of it any more but its events, and no host has anything of it.

Nor is there a mark of a move any more once all is quiet: it is done, or doesn't matter.
"""

from collections.abc import Collection, Iterable, Iterator

from control_plane import keys
from tests.invariants.steps import Breach

OF_WORKLOADS = (keys.VERSIONS, keys.WORKLOAD_STATUSES, keys.CRON_STATES, keys.ENDED, keys.DELETIONS)


def left_keys(stored: Iterable[str], workloads: Collection[str]) -> Iterator[Breach]:
    """Yield the keys that are left of workloads that aren't there: `default/service/web`."""
    for key in stored:
        if key.startswith(keys.MOVES):
            yield Breach("L11", f"{key} marks what is to be moved still")
        prefix = next((prefix for prefix in OF_WORKLOADS if key.startswith(prefix)), None)
        if prefix is None:
            continue
        id_ = "/".join(key.removeprefix(prefix).split("/")[:3])
        is_of_workload = id_.split("/")[1] in keys.KINDS if id_.count("/") == 2 else False
        if prefix == keys.DELETIONS or (is_of_workload and id_ not in workloads):
            yield Breach("L11", f"{key} is left of what was deleted")


def left_on_host(host: str, allocations: Iterable[tuple[str, str]], known: Collection[str]) -> Iterator[Breach]:
    """Yield what a host has of allocations that aren't `known`, by what it is and whose."""
    for what, allocation in allocations:
        if allocation not in known:
            yield Breach("L11", f"{what} of {allocation} is left on {host}")
