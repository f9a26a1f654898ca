"""Short-lived commands of the lab itself: `ip`, `nft`. They block; the async parts call them in a thread."""

import asyncio
import subprocess
from collections.abc import Callable, Sequence
from functools import partial
from typing import ParamSpec, TypeVar

Parameters = ParamSpec("Parameters")
Result = TypeVar("Result")
TIMEOUT_S = 20.0
NEEDED = ("ip", "nft", "nsenter", "unshare")


class LabError(Exception):
    """The lab itself failed, not what is tested in it."""


def call(command: Sequence[str], *, stdin: str = "", timeout_s: float = TIMEOUT_S) -> str:
    """Return the command's stdout; LabError with its stderr when it fails, TimeoutError when it was too slow."""
    try:
        done = subprocess.run(command, input=stdin, capture_output=True, text=True, timeout=timeout_s, check=False)
    except subprocess.TimeoutExpired as error:
        raise TimeoutError(f"`{' '.join(command)}` took over {timeout_s} s") from error
    if done.returncode != 0:
        raise LabError(f"`{' '.join(command)}` ended with {done.returncode}: {done.stderr.strip()}\n{stdin}")
    return done.stdout


async def in_thread(
    function: Callable[Parameters, Result], *args: Parameters.args, **kwargs: Parameters.kwargs
) -> Result:
    """Return what the blocking function returns. A cancellation waits for its end, so that nothing is half done.

    Otherwise a lab that is cancelled while it starts would be removed while a thread still adds to it.
    """
    work = asyncio.get_running_loop().run_in_executor(None, partial(function, *args, **kwargs))
    try:
        return await asyncio.shield(work)
    except asyncio.CancelledError:
        await asyncio.wait([work])  # bounded, as all that the lab runs is
        raise


def ip(*lines: str, netns: str | None = None) -> None:
    """Run lines of `ip` in one process, in a namespace or in the test's own."""
    call(["ip", *(["-n", netns] if netns else []), "-batch", "-"], stdin="\n".join(lines) + "\n")


def network_namespaces() -> tuple[str, ...]:
    return tuple(line.split()[0] for line in call(["ip", "netns", "list"]).splitlines() if line.strip())
