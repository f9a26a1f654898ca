"""Which images go: never one that is needed or somebody else's, the longest unused first, and not more than needed."""

from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.driver import HeldImage
from agent.folder import LocalFolder
from agent.image_choice import LEAST_UNUSED_S, ImagePolicy, idle_images
from agent.image_garbage import ImageGarbage
from agent.image_ledger import LEDGER_FILE, ImageLedger
from manifests.errors import ConflictError
from tests.clocks import StepClock

DAY_S = 86_400.0
NOW_S = StepClock().wall_s()
names = st.sampled_from([f"r.example/web:{n}" for n in range(8)])
images = st.builds(
    HeldImage,
    id=st.text("abc", min_size=3, max_size=3),
    names=st.lists(names, max_size=2).map(tuple),
    size_bytes=st.integers(0, 100),
    is_used=st.booleans(),
)


@given(
    st.lists(images, max_size=6), st.sets(names), st.dictionaries(names, st.floats(0, NOW_S)), st.booleans()
)  # fmt: skip
def test_what_is_needed_or_somebody_else_s_never_goes(
    held: list[HeldImage], wanted: set[str], used_s: dict[str, float], is_for_all: bool
) -> None:
    idle = idle_images(held, wanted, used_s.get, ImagePolicy(is_for_all=is_for_all), NOW_S)
    for one in idle:
        assert not one.image.is_used
        assert not wanted & set(one.image.names)
        if not is_for_all:
            assert one.image.names
            assert set(one.image.names) <= used_s.keys()
        assert one.unused_s is None or one.unused_s >= LEAST_UNUSED_S
    unused = [one.unused_s for one in idle if one.unused_s is not None]
    assert unused == sorted(unused, reverse=True)


class Manager:
    """Holds images on a disk that they alone fill."""

    def __init__(self, *held: HeldImage) -> None:
        self.held = list(held)
        self.removed: list[str] = []

    async def list_images(self) -> Sequence[HeldImage]:
        return list(self.held)

    async def remove_image(self, name: str) -> None:
        image = next(image for image in self.held if name in image.names)
        if image.id == "refused":
            raise ConflictError("cannot remove it", why="a container has it")
        self.held.remove(image)
        self.removed.append(name)

    async def image_folder(self) -> str:
        return ""

    def percent(self, _: str) -> float:
        return float(sum(image.size_bytes for image in self.held))


def image(name: str, size: int = 10, *, used: bool = False, id_: str = "") -> HeldImage:
    return HeldImage(id_ or name, (f"r.example/{name}:1",), size, used)


def garbage(
    folder: Path, manager: Manager, days: dict[str, float], *, wanted: frozenset[str] | None = frozenset()
) -> ImageGarbage:
    """Return one for a manager whose images were used so many days ago."""
    ledger = ImageLedger(LocalFolder(folder))
    for name, age in days.items():
        ledger.used(f"r.example/{name}:1", NOW_S - age * DAY_S, was_pulled=True)
    clock = StepClock()
    return ImageGarbage(manager, ledger, lambda: wanted, ImagePolicy(), clock, percent_of=manager.percent)  # type: ignore[arg-type]  # all of a driver that it needs


async def test_under_pressure_the_longest_unused_go_until_there_is_room(tmp_path: Path) -> None:
    manager = Manager(image("new", 30), image("old", 30), image("older", 30), image("used", 5, used=True))
    await garbage(tmp_path, manager, {"new": 1, "old": 2, "older": 3, "used": 4}).sweep()
    assert manager.removed == ["r.example/older:1"]


async def test_without_pressure_only_what_was_not_needed_for_long_goes(tmp_path: Path) -> None:
    manager = Manager(image("young"), image("old"), image("others"))
    await garbage(tmp_path, manager, {"young": 13, "old": 15}).sweep()
    assert manager.removed == ["r.example/old:1"]


async def test_what_an_assignment_names_stays_and_counts_as_used(tmp_path: Path) -> None:
    manager = Manager(image("web", 95))
    collector = garbage(tmp_path, manager, {"web": 100}, wanted=frozenset({"r.example/web:1"}))
    await collector.sweep()
    assert manager.removed == []
    assert ImageLedger(LocalFolder(tmp_path)).last_used_s("r.example/web:1") == NOW_S


async def test_while_not_all_assignments_are_known_nothing_goes(tmp_path: Path) -> None:
    manager = Manager(image("web", 95))
    await garbage(tmp_path, manager, {"web": 100}, wanted=None).sweep()
    assert manager.removed == []


async def test_what_the_manager_refuses_to_remove_stops_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    manager = Manager(image("a", 50, id_="refused"), image("b", 45))
    with caplog.at_level("INFO"):
        await garbage(tmp_path, manager, {"a": 9, "b": 8}).sweep()
    assert manager.removed == ["r.example/b:1"]
    assert "a container has it" in caplog.text
    assert "95 % full; not needed for" in caplog.text


def test_a_damaged_list_is_moved_aside_and_what_it_named_stays(tmp_path: Path) -> None:
    (tmp_path / LEDGER_FILE).write_text("{")
    assert ImageLedger(LocalFolder(tmp_path)).last_used_s("web") is None
    assert not (tmp_path / LEDGER_FILE).exists()
