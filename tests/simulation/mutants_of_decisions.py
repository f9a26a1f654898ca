"""Planted defects of what is decided about rollouts, drains, freezes and blocked work, and of what is told of it."""

from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from typing import Any

import control_plane.controllers.garbage
import control_plane.controllers.passes
import control_plane.controllers.rollouts
import control_plane.controllers.services
import control_plane.controllers.snapshot
import control_plane.controllers.writes
import control_plane.desired.rollouts
from control_plane import keys
from control_plane.controllers.ages import Ages
from control_plane.controllers.decision import Leaving
from control_plane.controllers.dirty import DirtySet
from control_plane.controllers.progress import ProgressClock
from control_plane.session_handler import ServedSession
from tests.simulation.mutant import Mutant, swap


def _too_few_serve(stack: ExitStack) -> None:
    def bounds(course: Any, mode: Any) -> Any:
        return replace(old(course, mode), floor=0)

    old = swap(stack, control_plane.controllers.services, "_bounds", bounds)


def _freeze_ignored(stack: ExitStack) -> None:
    def transactions(fence: Any, units: Any, *, also: Any = ()) -> Any:
        return old(fence, units)

    old = swap(stack, control_plane.controllers.writes, "transactions", transactions)
    swap(stack, control_plane.controllers.passes, "is_frozen", lambda state: False)


def _old_reasons(stack: ExitStack) -> None:
    """What is blocked is said to be so for the reasons of the first time."""
    first: dict[tuple[str, int], Any] = {}

    def place(asks: Any, ledger: Any, **named: Any) -> Any:
        plan = old(asks, ledger, **named)
        for one in plan.blocked:
            first.setdefault((one.workload.uid, one.blocked.version), one.blocked)
        return replace(
            plan,
            blocked=tuple(
                replace(one, blocked=replace(first[one.workload.uid, one.blocked.version], count=one.blocked.count))
                for one in plan.blocked
            ),
        )

    old = swap(stack, control_plane.controllers.passes, "place", place)


def _blocked_forgotten(stack: ExitStack) -> None:
    """What is blocked isn't looked at again when something is freed."""

    def mark_allocation(self: DirtySet, change: Any) -> None:
        blocked, self.blocked = self.blocked, set()
        old(self, change)
        self.blocked = blocked

    old = swap(stack, DirtySet, "_mark_allocation", mark_allocation)


def _drain_never_ends(stack: ExitStack) -> None:
    swap(stack, Ages, "draining_for_s", lambda self, node: 0.0)


def _fails_at_once(stack: ExitStack) -> None:
    swap(stack, ProgressClock, "stalled_for_s", lambda self, workload, progress: 1e6 if progress else 0.0)


def _never_fails(stack: ExitStack) -> None:
    swap(stack, ProgressClock, "stalled_for_s", lambda self, workload, progress: 0.0)


def _canaries_pass(stack: ExitStack) -> None:
    swap(stack, control_plane.controllers.rollouts, "has_canaries", lambda course: False)


def _newest_content(stack: ExitStack) -> None:
    """A container gets what its configs say now, whatever its version names."""

    def configs_of(self: Any, version: Any) -> dict[str, str | None]:
        contents: dict[str, str | None] = dict(old(self, version))
        for name in contents:
            record = self._state.configs.get(keys.config_id(version.workload.metadata.namespace, name))
            contents[name] = record.config.spec.data if record else contents[name]
        return contents

    old = swap(stack, ServedSession, "_configs_of", configs_of)


def _undo_of_nothing(stack: ExitStack) -> None:
    swap(stack, control_plane.desired.rollouts, "with_template_of", lambda workload, spec: workload)


def _garbage_stops_all(stack: ExitStack) -> None:
    """Nothing is decided while there is a record that can't be read."""

    def is_frozen(state: Any) -> bool:
        return bool(state.quarantined) or bool(old(state))

    old = swap(stack, control_plane.controllers.passes, "is_frozen", is_frozen)


def _ends_kept(stack: ExitStack) -> None:
    """What is kept of allocations that ended outlives their workload."""

    def ended(state: Any) -> Iterator[Any]:
        return iter(())

    swap(stack, control_plane.controllers.garbage, "_ended", ended)


def _moves_at_once(stack: ExitStack) -> None:
    """What is to be moved is stopped, whether anything has taken its place or not."""
    swap(stack, control_plane.controllers.snapshot, "leaving_by_move", lambda move: Leaving(move.sentence(), 0.0))


def _moves_kept(stack: ExitStack) -> None:
    swap(stack, control_plane.controllers.garbage, "_moves", lambda state: iter(()))


OF_DECISIONS = (
    Mutant("too-few-serve", "more are stopped at once than may be missing", _too_few_serve),
    Mutant("freeze-ignored", "the leader goes on in a frozen cluster", _freeze_ignored),
    Mutant("old-reasons", "the reasons of what is blocked are those of before", _old_reasons),
    Mutant("blocked-forgotten", "what is blocked isn't looked at when something is freed", _blocked_forgotten),
    Mutant("drain-unending", "a drain's deadline never passes", _drain_never_ends),
    Mutant("fails-at-once", "a rollout fails before its deadline", _fails_at_once),
    Mutant("never-fails", "a rollout's deadline never passes", _never_fails),
    Mutant("canaries-pass", "canaries aren't waited for", _canaries_pass),
    Mutant("newest-content", "containers get another content of a config than they name", _newest_content),
    Mutant("undo-nothing", "an undo brings nothing back", _undo_of_nothing),
    Mutant("garbage-stops", "a record that can't be read keeps all from being done", _garbage_stops_all, ("garbage",)),
    Mutant("moves-at-once", "what is to be moved stops before another takes its place", _moves_at_once),
    Mutant("moves-kept", "the marks of what was moved stay", _moves_kept),
    Mutant("ends-kept", "what ended is remembered when its workload is gone", _ends_kept),
)
