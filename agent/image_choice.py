"""Which images may go, and which first. Pure: agent.image_garbage asks, and removes them.

An image stays while a container has it, whoever's, or an assignment names it, or anything else than this agent gave it
one of its names.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from agent.driver import HeldImage
from agent.references import normalized

LEAST_UNUSED_S = 600.0  # a job that runs every few minutes needn't pull each time; a rollout may be under way


@dataclass(frozen=True, slots=True)
class ImagePolicy:
    """What the node's operator wants. Percents are of the file system on which the manager keeps images."""

    high_percent: float = 85.0  # from here on images are removed, those first that were not needed for longest,
    low_percent: float = 75.0  # until so much is used
    unused_s: float = 14 * 86_400.0  # after so long they go anyhow
    is_for_all: bool = False  # also what this agent didn't pull


@dataclass(frozen=True, slots=True)
class Idle:
    """An image that may go."""

    image: HeldImage
    unused_s: float | None  # None: this agent didn't pull it, so nobody knows


def idle_images(
    held: Iterable[HeldImage],
    wanted: Iterable[str],
    last_used_s: Callable[[str], float | None],
    policy: ImagePolicy,
    now_s: float,
) -> list[Idle]:
    """Return what may go, the longest unused first; before these, if `is_for_all`, what this agent didn't pull."""
    kept = {normalized(name) for name in wanted}
    found = []
    for image in held:
        names = {normalized(name) for name in image.names}
        times = [time_s for name in image.names if (time_s := last_used_s(name)) is not None]
        is_ours = bool(times) and len(times) == len(image.names)
        if image.is_used or names & kept or any(map(_is_made_here, names)):
            continue
        if is_ours and now_s - max(times) >= LEAST_UNUSED_S:
            found.append(Idle(image, now_s - max(times)))
        elif policy.is_for_all and not times:
            found.append(Idle(image, None))
    return sorted(found, key=lambda idle: (idle.unused_s is not None, -(idle.unused_s or 0.0), idle.image.id))


def _is_made_here(name: str) -> bool:
    """Say whether no registry has the image: drivers make some, such as that of sandboxes."""
    return "/wherry/" in name
