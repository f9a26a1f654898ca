"""Runs an agent as a process: its folder, its logs, its signals. An agent that ends leaves its containers running."""

import asyncio
import fcntl
import os
import random
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from agent.agent import Agent
from agent.drivers.choice import choose
from agent.folder import LocalFolder
from agent.guard_process import GuardProcess
from agent.kernel import Kernel
from agent.machine import LocalMachine
from agent.options import AgentOptions
from agent.transport import WebSocketTransport
from foundation.clock import SystemClock
from foundation.logs import Log, set_up_logs
from foundation.tasks import TaskGroup
from manifests.errors import ConflictError, UnauthorizedError, UsageError
from wherry.client import Client

LOCK_FILE = "lock"
_log = Log(__name__)


async def run_agent(options: AgentOptions) -> None:
    """Serve until SIGTERM or SIGINT. Raises WherryError if the agent can't even begin."""
    if not options.servers:
        raise UsageError("the agent has no server", fix="Give at least one with --server.")
    options.data_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
    with _only_agent_of(options.data_dir):
        folder = LocalFolder(options.data_dir)
        choice = await asyncio.to_thread(choose, options, folder)
        driver = choice.make(options)
        try:
            async with Client(options.servers, _token(options), options.ca_file) as client:
                agent = Agent(
                    options,
                    driver=driver,
                    transport=WebSocketTransport(client),
                    folder=folder,
                    machine=LocalMachine(choice.available),
                    clock=SystemClock(),
                    rng=random.Random(),
                    guard=GuardProcess(options.data_dir),
                    kernel=Kernel(),
                )
                await _until_signal(agent)
        finally:
            await driver.close()


def main(options: AgentOptions) -> None:
    """Run the agent in this process, with logs on standard error."""
    set_up_logs(level=options.log_level, daemon="agent")
    asyncio.run(run_agent(options))


async def _until_signal(agent: Agent) -> None:
    """Run the agent; a signal cancels it, and then this returns."""
    stopping = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopping.set)
    try:
        async with TaskGroup() as tasks:
            running = tasks.create_task(agent.run(), name="agent")
            await stopping.wait()
            _log.info("agent stops", containers="left running")
            running.cancel()
    finally:
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.remove_signal_handler(number)


@contextmanager
def _only_agent_of(data_dir: Path) -> Iterator[None]:
    """Hold the folder's lock: two agents of one identity would undo each other's work."""
    descriptor = os.open(data_dir / LOCK_FILE, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise ConflictError(
                f"cannot use the data folder {data_dir}",
                why="another agent runs with it",
                fix="Stop that one, or give this one a folder and a name of its own.",
            ) from error
        yield
    finally:
        os.close(descriptor)


def _token(options: AgentOptions) -> str:
    if options.token_file is None:
        return options.token
    try:
        return options.token_file.read_text().strip()
    except OSError as error:
        raise UnauthorizedError(
            f"cannot read the token from {options.token_file}", why=error.strerror or str(error)
        ) from error
