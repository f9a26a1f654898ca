"""For all tests. How fast examples are made says something of the machine and nothing of the code.

The same examples are tried each time, so that a change is judged by what it changed; `script/test --explore` tries new
ones, of which a failing one is worth a line of its own (@example).
"""

import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from control_plane.store.protocol import Store
from tests.stores import KINDS, opened_store

IS_EXPLORING = bool(os.environ.get("WHERRY_TEST_EXPLORE"))

settings.register_profile(
    "wherry", deadline=None, derandomize=not IS_EXPLORING, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("wherry")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "store" in metafunc.fixturenames and metafunc.definition.get_closest_marker("each_store"):
        metafunc.parametrize("store", KINDS, indirect=True)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the files that break whole clusters: they take minutes, mostly of waiting; none should be last."""
    items.sort(key=lambda item: item.get_closest_marker("hosts") is None)


@pytest.fixture
async def store(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Store]:
    """An empty store: an SQLite file, or each kind in turn where a test or its module is marked `each_store`."""
    async with opened_store(getattr(request, "param", "sqlite"), tmp_path) as opened:
        yield opened
