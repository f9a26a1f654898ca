"""What a server asks of the system for its own process."""

import asyncio
import sys
from pathlib import Path

import aiohttp

from tests.lab.host import environment
from tests.lab.waiting import wait_until
from tests.scripted import free_port

SOON_S = 30.0


async def test_a_server_takes_as_many_file_descriptors_as_it_may_have(tmp_path: Path) -> None:
    port = free_port()
    words = ("--store", f"sqlite:{tmp_path / 'store.db'}", "--listen", f"127.0.0.1:{port}", "--data-dir", str(tmp_path))
    process = await asyncio.create_subprocess_exec(
        *("prlimit", "--nofile=256:4096", sys.executable, "-m", "wherry", "server"), *words, env=environment()
    )
    try:
        await wait_until(lambda: _answers(port), SOON_S, "the server answers")
        assert _open_files(process.pid) == ["4096", "4096"]
    finally:
        process.terminate()
        await process.wait()


async def _answers(port: int) -> bool:
    async with aiohttp.ClientSession() as http, http.get(f"http://127.0.0.1:{port}/v1/health") as answer:
        return answer.status == 200


def _open_files(pid: int) -> list[str]:
    """Return the soft and the hard limit."""
    lines = Path(f"/proc/{pid}/limits").read_text().splitlines()
    return next(line for line in lines if line.startswith("Max open files")).split()[3:5]
