"""Which store a URL opens, and what that loads."""

import random
import subprocess
import sys
from pathlib import Path

import pytest

from control_plane.store.open import open_store
from control_plane.store.sqlite import SqliteStore
from foundation.clock import SystemClock
from manifests.errors import UsageError

ROOT = Path(__file__).parents[2]


async def test_a_path_opens_the_embedded_store_and_makes_its_folder(tmp_path: Path) -> None:
    store = await open_store(f"sqlite:{tmp_path}/new/store.db", clock=SystemClock(), rng=random.Random(0))
    assert isinstance(store, SqliteStore)
    await store.close()


@pytest.mark.parametrize("url", ["", "sqlite:", "etcd:", "etcd:10.0.0.1:2379", "postgres:x", "/var/lib/store.db"])
async def test_a_url_that_names_no_store_is_a_usage_error(url: str) -> None:
    with pytest.raises(UsageError):
        await open_store(url, clock=SystemClock(), rng=random.Random(0))


def test_the_embedded_store_does_not_load_grpc() -> None:
    code = "import sys, control_plane.store.open; sys.exit(bool({'grpc', 'google.protobuf'} & sys.modules.keys()))"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0
