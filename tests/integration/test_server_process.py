"""What a server asks of the system for its own process."""

import asyncio
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
import pytest

from tests.lab.disks import SmallDisk, unmount_below
from tests.lab.host import environment
from tests.lab.network import why_no_lab
from tests.lab.waiting import wait_until
from tests.scripted import free_port

SOON_S = 30.0


@asynccontextmanager
async def server_process(store: Path, data_dir: Path, *before: str) -> AsyncIterator[asyncio.subprocess.Process]:
    """Run a server, started by the words `before`, from when it answers until the block ends."""
    port = free_port()
    words = ("--store", f"sqlite:{store}", "--listen", f"127.0.0.1:{port}", "--data-dir", str(data_dir))
    process = await asyncio.create_subprocess_exec(
        *(*before, sys.executable, "-m", "wherry", "server"), *words, env=environment()
    )
    try:
        await wait_until(lambda: _answers(port), SOON_S, "the server answers")
        yield process
    finally:
        process.terminate()
        await process.wait()


async def test_a_server_takes_as_many_file_descriptors_as_it_may_have(tmp_path: Path) -> None:
    async with server_process(tmp_path / "store.db", tmp_path, "prlimit", "--nofile=256:4096") as process:
        assert _open_files(process.pid) == ["4096", "4096"]


@pytest.mark.hosts
@pytest.mark.skipif(bool(why_no_lab()), reason=why_no_lab())
async def test_a_server_comes_up_although_its_disk_is_full(tmp_path: Path) -> None:
    disk = SmallDisk(tmp_path / "data", 2**20)
    disk.mount()
    try:
        async with server_process(tmp_path / "store.db", disk.folder):
            pass
        disk.fill()
        async with server_process(tmp_path / "store.db", disk.folder) as process:
            assert process.returncode is None
    finally:
        unmount_below(tmp_path)


async def _answers(port: int) -> bool:
    async with aiohttp.ClientSession() as http, http.get(f"http://127.0.0.1:{port}/v1/health") as answer:
        return answer.status == 200


def _open_files(pid: int) -> list[str]:
    """Return the soft and the hard limit."""
    lines = Path(f"/proc/{pid}/limits").read_text().splitlines()
    return next(line for line in lines if line.startswith("Max open files")).split()[3:5]
