"""Following a log: lines that one container writes at a steady rate, counted at the end of a pipe, and their cost."""

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress

from bench.cli import WHERRY
from bench.figures import Figure, at_least, at_most, reported
from bench.rig import OneNode, cpu_s, one_node, service, until_ready
from tests.lab.cluster import NodeSize
from tests.lab.host import environment

RATE = 10_000  # lines a second
SECONDS, SHORT_SECONDS = 30, 8
TARGET_CORES = 0.5  # of the agent
END_S = 120.0
_BURST = 500  # lines; the pause after each takes longer than it says, and more so on a busy machine
_PAUSE_S = 0.6 * _BURST / RATE
_WRITE = (
    'BEGIN {{ while (system("test -e /tmp/go")) system("sleep 0.1"); for (n = 0; n < {count}; n++) {{ '
    'print n " is the number of this line, which is as long as lines of logs mostly are"; '
    'if (n % {burst} == 0) {{ fflush(); system("sleep {pause}") }} }} print "end"; fflush(); system("sleep 1000") }}'
)


async def measure(*, short: bool) -> list[Figure]:
    count = RATE * (SHORT_SECONDS if short else SECONDS)
    script = _WRITE.format(count=count, burst=_BURST, pause=f"{_PAUSE_S:.4f}")
    async with one_node(NodeSize()) as node:
        await node.api.apply(service("chatty", 1, command=["awk", script], resources={"cpu": "1", "memory": "64Mi"}))
        await until_ready(node.api, "chatty", 1)
        async with _wherry(node, "logs", "service/chatty", "-f") as following:
            async with _wherry(node, "exec", "service/chatty", "--", "touch", "/tmp/go") as going:
                if await going.wait() != 0:
                    raise RuntimeError("the container could not be told to begin")
            assert following.stdout is not None
            before_s, began_s = _cpu_s(node), time.monotonic()
            numbers = await _numbers(following.stdout)
            after_s, took_s = _cpu_s(node), time.monotonic() - began_s
    agent, server = ((after - before) / took_s for before, after in zip(before_s, after_s, strict=True))
    return [
        at_most("lines lost, repeated or out of order", _wrong(numbers, count), "", 0),
        at_most("cores that the agent used", agent, "", TARGET_CORES),
        at_least("lines a second, from the container to the pipe", count / took_s, "", RATE),
        reported("cores that the server used", server, ""),
        reported("lines", count, ""),
    ]


def _wrong(numbers: Sequence[int], count: int) -> int:
    """Return how many lines aren't where they belong.

    >>> _wrong([0, 1, 2], 3), _wrong([0, 2], 3)
    (0, 2)
    """
    return sum(at >= len(numbers) or numbers[at] != at for at in range(count)) + max(0, len(numbers) - count)


def _cpu_s(node: OneNode) -> tuple[float, float]:
    return cpu_s(node.agent.process.pid), cpu_s(node.server.process.pid)


async def _numbers(stream: asyncio.StreamReader) -> list[int]:
    """Return the numbers of all lines up to the end of what the container writes."""
    rest, found = b"", list[bytes]()
    async with asyncio.timeout(END_S):
        while b"end" not in found[-1:]:
            *lines, rest = (rest + await stream.read(1 << 18)).split(b"\n")
            found += lines
    return [int(line.partition(b" ")[0]) for line in found[:-1]]


@asynccontextmanager
async def _wherry(node: OneNode, *words: str) -> AsyncIterator[asyncio.subprocess.Process]:
    """Run the command line for the block."""
    own = ("--server", node.url, "--token-file", str(node.token_file))
    given = words[: words.index("--")] if "--" in words else words
    process = await asyncio.create_subprocess_exec(
        *(str(WHERRY), *given, *own, *words[len(given) :]),
        stdout=asyncio.subprocess.PIPE,
        env=environment(),
        limit=1 << 20,
    )
    try:
        yield process
    finally:
        with suppress(ProcessLookupError):
            process.kill()
        await process.wait()
