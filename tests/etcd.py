"""Starts real etcds for tests, on free ports and in temporary folders, and breaks them on request."""

import signal
import tempfile
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import aiohttp

from tests.etcd_process import EtcdProcess, free_port


class EtcdCluster:
    """One or three members, by index."""

    def __init__(self, members: Sequence[EtcdProcess]) -> None:
        self._members = members

    @property
    def endpoints(self) -> tuple[str, ...]:
        return tuple(member.endpoint for member in self._members)

    async def kill(self, index: int) -> None:
        await self._members[index].kill()

    async def restart(self, index: int) -> None:
        """Start a killed member again, and wait until it serves."""
        await self._members[index].start()

    def pause(self, index: int) -> None:
        """Freeze the member: its connections stay open, and silent."""
        self._members[index].signal(signal.SIGSTOP)

    def resume(self, index: int) -> None:
        self._members[index].signal(signal.SIGCONT)

    async def leader(self) -> int:
        """Return the index of the leader."""
        async with aiohttp.ClientSession() as session:
            for index, endpoint in enumerate(self.endpoints):
                async with session.post(f"{endpoint}/v3/maintenance/status", json={}) as response:
                    status = await response.json()
                    if status["leader"] == status["header"]["member_id"]:
                        return index
        raise AssertionError("no member leads")


@asynccontextmanager
async def etcd_cluster(members: int = 1, *, options: Sequence[str] = ()) -> AsyncIterator[EtcdCluster]:
    """Run a cluster for the block; its processes and files are gone afterwards."""
    with tempfile.TemporaryDirectory(prefix="wherry-etcd-") as folder:
        peers = {f"m{index}": free_port() for index in range(members)}
        processes = [EtcdProcess(Path(folder) / name, name=name, peers=peers, options=options) for name in peers]
        async with AsyncExitStack() as stack:
            for process in processes:
                stack.push_async_callback(process.kill)
                await process.launch()
            for process in processes:
                await process.wait_ready()
            yield EtcdCluster(processes)
