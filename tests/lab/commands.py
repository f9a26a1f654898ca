"""Short-lived commands of the lab itself: `ip`, `nft`. They block; the async parts call them in a thread."""

import subprocess
from collections.abc import Sequence

TIMEOUT_S = 20.0
NEEDED = ("ip", "nft", "nsenter", "unshare")


class LabError(Exception):
    """The lab itself failed, not what is tested in it."""


def call(command: Sequence[str], *, stdin: str = "") -> str:
    """Return the command's stdout; LabError with its stderr when it fails."""
    done = subprocess.run(command, input=stdin, capture_output=True, text=True, timeout=TIMEOUT_S, check=False)
    if done.returncode != 0:
        raise LabError(f"`{' '.join(command)}` ended with {done.returncode}: {done.stderr.strip()}\n{stdin}")
    return done.stdout


def ip(*lines: str, netns: str | None = None) -> None:
    """Run lines of `ip` in one process, in a namespace or in the test's own."""
    call(["ip", *(["-n", netns] if netns else []), "-batch", "-"], stdin="\n".join(lines) + "\n")


def network_namespaces() -> tuple[str, ...]:
    return tuple(line.split()[0] for line in call(["ip", "netns", "list"]).splitlines() if line.strip())
