"""Agents for tests: in this process, or as a process of its own that can be killed; both with real containers."""

import asyncio
import ctypes
import os
import random
import signal
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from pathlib import Path

from agent.agent import Agent
from agent.driver import Driver
from agent.drivers.choice import OFFERS
from agent.folder import LocalFolder
from agent.guard_process import GuardProcess
from agent.kernel import Kernel
from agent.machine import LocalMachine
from agent.options import AgentOptions
from agent.transport import WebSocketTransport
from foundation.clock import SystemClock
from wherry.client import Client

_CLONE_NEWNET = 0x40000000
_PROGRAM = """
import sys
from pathlib import Path
from agent.main import main
from agent.folder import LocalFolder
from agent.machine import LocalMachine
from agent.options import AgentOptions
folder, socket, parent, server = sys.argv[1:]
main(
    AgentOptions(
        servers=(server,), name="n1", data_dir=Path(folder), docker_socket=socket, cgroup_parent=parent, cpu_m=16_000
    )
)
"""


@contextmanager
def in_network_namespace(name: str) -> Iterator[None]:
    """Take this thread, and what it starts, into the network namespace of a dockerd, where bridge addresses answer."""
    libc = ctypes.CDLL(None, use_errno=True)
    own, other = os.open("/proc/thread-self/ns/net", os.O_RDONLY), os.open(f"/run/netns/{name}", os.O_RDONLY)
    try:
        assert libc.setns(other, _CLONE_NEWNET) == 0, os.strerror(ctypes.get_errno())
        yield
    finally:
        assert libc.setns(own, _CLONE_NEWNET) == 0, os.strerror(ctypes.get_errno())
        os.close(own)
        os.close(other)


@asynccontextmanager
async def running_agent(options: AgentOptions, driver: Driver | None = None) -> AsyncIterator[Agent]:
    """Run an agent in this process until the block ends, with the given driver, the options' one, or else Docker's."""
    name = options.driver or "docker"
    driver = driver or next(offer for offer in OFFERS if offer.name == name).make(options)
    try:
        async with Client(options.servers, options.token) as client:
            agent = Agent(
                options,
                driver=driver,
                transport=WebSocketTransport(client),
                folder=LocalFolder(options.data_dir),
                machine=LocalMachine(),
                clock=SystemClock(),
                rng=random.Random(1),
                guard=GuardProcess(options.data_dir),
                kernel=Kernel(),
            )
            async with asyncio.TaskGroup() as tasks:
                task = tasks.create_task(agent.run(), name="agent under test")
                try:
                    yield agent
                finally:
                    task.cancel()
    finally:
        await driver.close()


@asynccontextmanager
async def agent_process(
    folder: Path, socket: Path, cgroup_parent: str, server: str
) -> AsyncIterator[asyncio.subprocess.Process]:
    """Run an agent as a process; whatever is left of it is killed in the end."""
    root = Path(__file__).parent.parent
    with (folder.parent / "agent.log").open("ab") as log:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-c", _PROGRAM, str(folder), str(socket), cgroup_parent, server),
            cwd=root,
            stderr=log,
            env={**os.environ, "PYTHONPATH": str(root)},
        )
    try:
        yield process
    finally:
        with suppress(ProcessLookupError):
            process.send_signal(signal.SIGKILL)
        await process.wait()
