"""Allocations that may run only while a server is heard (onDisconnect.stopAfter): when they end, and begin again. Pure.

Once it has had no word for that long, an allocation is ended, and stays so until a server has said everything that is
desired and still desires it: meanwhile another node may have got its slot. Called by agent.reconcile and agent.node.
"""

import math
from dataclasses import replace

from agent.endings import DISCONNECTED
from agent.tracked import Moment, Tracked
from manifests.allocations import Phase
from manifests.quantities import render_duration

_BEGUN = (Phase.PULLING, Phase.STARTING, Phase.RUNNING)


def is_severed(tracked: Tracked, moment: Moment) -> bool:
    """Say whether there was no word for longer than it may run without."""
    stop_after_s = tracked.stop_after_s
    return stop_after_s is not None and moment.silent_s >= stop_after_s and not tracked.status.is_terminal


def sever(tracked: Tracked, moment: Moment) -> Tracked:
    """Return the record from when its time without word was over: its attempt must end, and no other begins."""
    stop_after_s = tracked.stop_after_s or 0.0
    if tracked.status.phase not in _BEGUN or tracked.doom:
        return replace(tracked, awaits_word=True)
    over_s = moment.silent_s - stop_after_s if math.isfinite(moment.silent_s) else 0.0
    message = (
        f"no server was heard for {render_duration(stop_after_s)} (onDisconnect.stopAfter): "
        "it was ended, and starts again when a server says so"
    )
    severed_s = moment.wall_s - over_s
    return replace(tracked, awaits_word=True, severed_s=severed_s, doom=DISCONNECTED, doom_message=message)


def released(tracked: Tracked) -> Tracked:
    """Return the record after a server has said that it is desired."""
    return replace(tracked, awaits_word=False)
