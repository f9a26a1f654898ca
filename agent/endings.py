"""How an attempt ended, and what follows from it: success, another attempt after a while, or failure. Pure.

Called by agent.reconcile alone.
"""

from dataclasses import replace

from agent.driver import Container, ContainerState
from agent.tracked import Moment, Role, Tracked
from foundation.backoff import Backoff
from manifests.allocations import Ending, Phase, advance
from manifests.containers import RestartPolicy
from manifests.quantities import render_bytes, render_duration
from manifests.workloads import Kind

_LOST_EXIT_CODE = 255  # what managers give when they don't know the real one
_SIGKILL_EXIT_CODE = 137
DISCONNECTED = "disconnected"
_NOT_ITS_FAULT = frozenset({"lostByRuntime", DISCONNECTED})
_NEVER_RAN = frozenset({"imageFailed", "startFailed"})
_SIGNALS = {
    129: "SIGHUP",
    130: "SIGINT",
    131: "SIGQUIT",
    134: "SIGABRT",
    137: "SIGKILL",
    139: "SIGSEGV",
    143: "SIGTERM",
}


def end_attempt(tracked: Tracked, moment: Moment) -> Tracked:
    """Return the record after its attempt has ended by itself, failed to start, or was ended for its health."""
    ending = ending_of(tracked, moment)
    if _has_succeeded(tracked, ending):
        return finish(tracked, Phase.SUCCEEDED, ending)
    if tracked.must_end:
        return finish(tracked, Phase.STOPPED, ending)
    if ending.reason == "timeout":
        return finish(tracked, Phase.FAILED, ending)
    is_own = ending.reason not in (*_NEVER_RAN, DISCONNECTED)
    if is_own and tracked.restart_policy is RestartPolicy.NEVER:
        return finish(tracked, Phase.FAILED, ending, "it isn't restarted, since restart.policy is never")
    return _restart_later(tracked, ending, moment)


def _restart_later(tracked: Tracked, ending: Ending, moment: Moment) -> Tracked:
    restart = tracked.spec.restart
    failures = tuple(at for at in tracked.failures if at > moment.now_s - restart.window_s)
    strikes = 0 if _was_steady(tracked, moment) else tracked.strikes
    is_counted = ending.reason not in _NOT_ITS_FAULT
    if is_counted:
        failures, strikes = (*failures, moment.now_s), strikes + 1
    tracked = replace(tracked, failures=failures, strikes=strikes, failure=None, doom="", doom_message="")
    if is_counted and len(failures) > restart.attempts:
        count = f"{len(failures)} failed attempts within {render_duration(restart.window_s)}"
        return finish(tracked, Phase.FAILED, ending, f"{count}, and restart.attempts is {restart.attempts}")
    # The first exit is answered at once; what couldn't even start would most likely fail again.
    steps = 0 if not is_counted else strikes - (0 if ending.reason in _NEVER_RAN else 1)
    delay_s = Backoff(restart.backoff_s, restart.max_backoff_s).delay_s(steps) if steps > 0 else 0.0
    due_s = max(moment.now_s + delay_s, tracked.may_start_s(moment.now_s))
    status = advance(
        tracked.status,
        Phase.BACKOFF,
        last_ending=ending,
        message=ending.message,
        next_attempt_s=moment.wall_s + due_s - moment.now_s,
        failures=strikes,
    )
    return replace(tracked, status=status, due_s=due_s, healthy_since_s=None)


def _was_steady(tracked: Tracked, moment: Moment) -> bool:
    """Say whether the attempt that ended had been healthy for long enough. Its end may be seen late."""
    container = tracked.container
    if container is None or container.state is not ContainerState.EXITED:
        return False
    ran_s = container.finished_s - container.started_s if container.started_s else tracked.steady_s
    return tracked.is_steady(moment.now_s) and ran_s >= tracked.steady_s


def finish(tracked: Tracked, phase: Phase, ending: Ending | None, why: str = "") -> Tracked:
    """Return the record in a terminal phase."""
    parts = [text for text in (ending.message if ending else "", why) if text]
    changes = {
        "message": "; ".join(parts),
        "last_ending": ending or tracked.status.last_ending,
        "failures": tracked.strikes,
    }
    return replace(tracked, status=advance(tracked.status, phase, **changes), failure=None)


def ending_of(tracked: Tracked, moment: Moment) -> Ending:
    """Return how the current attempt ended, with a sentence that says what to do."""
    container = tracked.container
    exited = container if container is not None and container.state is ContainerState.EXITED else None
    reason, message = _reason(tracked, exited)
    return Ending(
        attempt=tracked.status.attempt,
        exit_code=exited.exit_code if exited else None,
        reason=reason,
        message=message,
        finished_s=(exited.finished_s if exited else 0.0) or moment.wall_s,
    )


def _reason(tracked: Tracked, exited: Container | None) -> tuple[str, str]:
    if tracked.failure is not None:
        return tracked.failure.reason, tracked.failure.message
    if tracked.doom and not _ended_before_it_was_severed(tracked, exited):
        return tracked.doom, tracked.doom_message
    is_lost = exited is not None and exited.exit_code == _LOST_EXIT_CODE and tracked.has_lost_sight
    if tracked.role is Role.SANDBOX and not is_lost and not tracked.must_end:
        return "sandboxLost", "its sandbox, which holds its network, ended: all its containers are started anew"
    if exited is None:
        return "exited", "its container is gone: something other than Wherry removed it"
    limit = render_bytes(tracked.spec.limit().memory_bytes)
    if exited.oom_killed and exited.exit_code != 0:
        return "oomKilled", (
            f"it was killed when it needed more memory than its limit of {limit}: "
            f"raise limits.memory (or resources.memory), or make it use less"
        )
    if is_lost:
        return "lostByRuntime", "the container manager was restarted and lost its container"
    code = exited.exit_code or 0
    signal = f" ({_SIGNALS[code]})" if code in _SIGNALS else ""
    # The manager may miss that the kernel killed for memory; our own stops end in SIGKILL as well.
    is_riddle = code == _SIGKILL_EXIT_CODE and not tracked.must_end
    hint = f"; if nobody killed it, its memory limit of {limit} (limits.memory) may be too small" if is_riddle else ""
    return "exited", f"exited with code {code}{signal}{hint}"


def _ended_before_it_was_severed(tracked: Tracked, exited: Container | None) -> bool:
    """Say whether it ended by itself while an agent that was frozen didn't look. Both times are of the node's clock."""
    return tracked.doom == DISCONNECTED and exited is not None and 0 < exited.finished_s < tracked.severed_s


def _has_succeeded(tracked: Tracked, ending: Ending) -> bool:
    if ending.reason != "exited" or ending.exit_code != 0:
        return False
    is_all_there_is = tracked.kind is Kind.JOB and tracked.role in (Role.ALONE, Role.MEMBER)
    return is_all_there_is or tracked.role is Role.INIT or tracked.restart_policy is not RestartPolicy.ALWAYS
