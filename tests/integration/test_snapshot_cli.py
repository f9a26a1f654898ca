"""`wherry snapshot` as an operator uses it: save from a running cluster, look, restore into another store, go on."""

import asyncio
import sys
from pathlib import Path

import pytest

from manifests.allocations import Phase
from tests.scripted import ScriptedAgent, connected, facts, manifest, served

WEB = "/v1/workloads/default/service/web"


async def wherry(*words: str, token: str = "") -> tuple[int, str]:
    """Return the exit code and all that was said."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "wherry", *words),
        env={"WHERRY_TOKEN": token, "PATH": "/usr/bin:/bin"},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    said, _ = await process.communicate()
    return process.returncode or 0, said.decode()


def mode_of(file: Path) -> int:
    return file.stat().st_mode & 0o777


def shorten(file: Path, count: int) -> None:
    file.write_bytes(file.read_bytes()[:-count])


def files_in(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


@pytest.fixture
async def snapshot(tmp_path: Path) -> Path:
    """A snapshot of a cluster with a service of two on one node."""
    file = tmp_path / "monday.snapshot"
    async with served(tmp_path / "old") as server, connected(server, ScriptedAgent(server, facts("n1"))):
        await server.apply(manifest(replicas=2))
        await server.until_state(WEB, "healthy")
        token = server.admin["Authorization"].removeprefix("Bearer ")
        code, said = await wherry("snapshot", "save", str(file), "--server", server.url, token=token)
        assert code == 0, said
    return file


async def test_a_cluster_goes_on_from_a_snapshot_with_what_runs(tmp_path: Path, snapshot: Path) -> None:
    assert mode_of(snapshot) == 0o600
    store = f"sqlite:{tmp_path / 'new.db'}"
    code, said = await wherry("snapshot", "restore", str(snapshot), "--store", store)
    assert code == 0, said
    async with served(tmp_path / "new", store=store) as server, connected(server, ScriptedAgent(server, facts("n1"))):
        web = await server.until_state(WEB, "healthy")
        assert web["counts"]["ready"] == 2
        allocations = await server.allocations()
        assert {a["phase"] for a in allocations} == {Phase.RUNNING}


async def test_what_a_file_holds_is_told(snapshot: Path) -> None:
    code, said = await wherry("snapshot", "show", str(snapshot))
    assert code == 0, said
    assert "generation: 1\n" in said
    assert "2 desired/allocations" in said


async def test_a_file_that_was_cut_short_is_refused_and_a_missing_one_is_not_found(snapshot: Path) -> None:
    shorten(snapshot, 200)
    code, said = await wherry("snapshot", "show", str(snapshot))
    assert (code, "is not" in said) == (1, True), said
    code, said = await wherry("snapshot", "show", str(snapshot) + ".gone")
    assert code == 3, said


async def test_a_failed_save_leaves_what_was_there(snapshot: Path) -> None:
    before = files_in(snapshot.parent)
    code, said = await wherry("snapshot", "save", str(snapshot), "--server", "http://127.0.0.1:1")
    assert code == 1, said
    assert files_in(snapshot.parent) == before


async def test_a_store_that_is_not_empty_is_replaced_only_if_told_to(tmp_path: Path, snapshot: Path) -> None:
    store = f"sqlite:{tmp_path / 'old' / 'store.db'}"
    code, said = await wherry("snapshot", "restore", str(snapshot), "--store", store)
    assert (code, "--replace" in said) == (4, True), said
    code, said = await wherry("snapshot", "restore", str(snapshot), "--store", store, "--replace")
    assert code == 0, said


async def test_what_would_be_is_told_of_a_file_without_a_cluster(snapshot: Path) -> None:
    code, said = await wherry("simulate", "--snapshot", str(snapshot), "--lose", "n1")
    assert (code, "service/web stays blocked (and no longer fits)" in said) == (1, True), said
    code, said = await wherry("simulate", "--snapshot", str(snapshot), "--lose", "n1", "--add", "2cpu/1Gi")
    assert (code, "service/web [0]: n1 -> new-1" in said) == (0, True), said


async def test_what_could_be_moved_is_told_of_a_file(snapshot: Path) -> None:
    code, said = await wherry("rebalance", "--dry-run", "--snapshot", str(snapshot))
    assert (code, said.splitlines()[0]) == (0, "Moves: none"), said
    code, said = await wherry("rebalance", "--dry-run", "--snapshot", str(snapshot), "--max-moves", "0")
    assert (code, "--max-moves" in said) == (2, True), said
