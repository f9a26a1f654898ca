"""How often one allocation may be started: never more than ten times a minute, whatever its manifest says. Pure.

A group of n containers gets n - 1 starts more, so that its first ones, or those after a lost sandbox, aren't held up:
of each container the first start within a minute is free, and all further ones of the group are counted together.
"""

from collections.abc import Iterable, Sequence

MOST_STARTS = 10
WINDOW_S = 60.0


def recent(starts: Sequence[float], now_s: float) -> tuple[float, ...]:
    """Return those of the starts, oldest first, that still count."""
    return tuple(at for at in starts if at > now_s - WINDOW_S)


def free_again_s(starts: Sequence[float], now_s: float) -> float:
    """Return when the container may be started again, by its own starts; 0.0 for at once.

    >>> free_again_s([1.0, 2.0], 3.0), free_again_s([float(at) for at in range(1, 11)], 12.0)
    (0.0, 61.0)
    """
    counted = recent(starts, now_s)
    return counted[-MOST_STARTS] + WINDOW_S if len(counted) >= MOST_STARTS else 0.0


def group_free_again_s(starts: Iterable[Sequence[float]], now_s: float) -> float:
    """Return when any container of a group that has started within the minute may do so again; 0.0 for at once.

    >>> group_free_again_s([[1.0], [2.0]], 3.0), group_free_again_s([[1.0] * 5, [2.0] * 6], 3.0)
    (0.0, 61.0)
    """
    counted = [times for of_one in starts if len(times := recent(of_one, now_s)) > 1]
    if sum(len(times) - 1 for times in counted) < MOST_STARTS - 1:
        return 0.0
    return min(times[0] for times in counted) + WINDOW_S
