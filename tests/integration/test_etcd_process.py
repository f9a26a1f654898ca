"""The etcd that Wherry starts itself."""

import random
from pathlib import Path

import pytest

from control_plane.store.open import open_store
from control_plane.store.protocol import Put, Txn
from foundation.clock import SystemClock
from manifests.errors import UnavailableError
from tests.etcd_process import EtcdProcess

pytestmark = pytest.mark.etcd


async def test_it_takes_over_from_one_whose_starter_was_killed(tmp_path: Path) -> None:
    orphan, successor = EtcdProcess(tmp_path), EtcdProcess(tmp_path)
    try:
        await orphan.start()
        store = await open_store(f"etcd:{orphan.endpoint}", clock=SystemClock(), rng=random.Random(0))
        await store.commit(Txn((), (Put("/a", b"kept"),)))
        await store.close()
        await successor.start()
        assert not orphan.is_running
        store = await open_store(f"etcd:{successor.endpoint}", clock=SystemClock(), rng=random.Random(0))
        entry = await store.get("/a")
        await store.close()
        assert entry is not None
        assert entry.value == b"kept"
        await successor.stop()
        assert not successor.is_running
    finally:
        await orphan.kill()
        await successor.kill()


async def test_one_that_can_not_start_tells_why(tmp_path: Path) -> None:
    process = EtcdProcess(tmp_path, options=("--no-such-option",))
    with pytest.raises(UnavailableError, match="no-such-option"):
        await process.start()
    assert not process.is_running
