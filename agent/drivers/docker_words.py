"""Container managers' messages in words that say what to do. Pure; for people only, so a miss costs clarity only.

Docker's and containerd's: both pass on what runc says.
"""

import re
from dataclasses import dataclass

from agent.driver import StartError
from manifests.errors import UnavailableError, WherryError


@dataclass(frozen=True, slots=True)
class _Rule:
    """What to say when Docker's text matches; `{}` takes the groups of the pattern."""

    pattern: re.Pattern[str]
    what: str
    fix: str


def _rule(pattern: str, what: str, fix: str) -> _Rule:
    return _Rule(re.compile(pattern, re.DOTALL), what, fix)


_START_RULES = (
    _rule(
        r"(?:Bind for|listen \w+) (\[[^\]]*\]|[^\s\[:]*|[0-9a-fA-F:]+):(\d+)"
        r"(?: failed: port is already allocated|.*already in use)",
        "port {1} of {0} is taken on this node",
        "Publish another port, let Wherry choose one with `publish: auto`, or stop what holds the port "
        "(`ss -ltnp 'sport = :{1}'` names it).",
    ),
    _rule(
        r"listen \w+ (\[[^\]]*\]|[^\s\[:]*):(\d+).*cannot assign requested address",
        "port {1} can't be published on {0}, which is no address of this node",
        "Check the address on which the node publishes (`ip address` lists what it has).",
    ),
    _rule(
        r'exec: "([^"]*)": (?:executable file not found|stat [^:]*: no such file|no such file)',
        "the image has no executable {0}",
        "Check `command` against the image; a shell's built-in needs `command: [sh, -c, ...]`.",
    ),
    _rule(
        r"exec (\S+): no such file or directory",
        "{0} can't run in this image",
        "Its interpreter or loader is missing in the image: check the first line of a script, or the image's libc.",
    ),
    _rule(
        r"exec (\S+): exec format error",
        "{0} is not a program for this machine",
        "Use an image for this node's architecture; a script needs a first line such as `#!/bin/sh`.",
    ),
    _rule(
        r'exec: "?([^":]*)"?: permission denied',
        "{0} is not executable in the image",
        "Check `command`, the file's mode in the image, and `user`.",
    ),
    _rule(
        r"unable to find (user|group) ([^:]*): no matching entries",
        "the image has no {0} {1}",
        "Set `user` to one of the image's /etc/passwd, or to numbers (`1000:1000`).",
    ),
    _rule(
        r'chdir to cwd \("([^"]*)"\)',
        "the working directory {0} can't be entered",
        "Check `workingDir` against the image, and that `user` may enter it.",
    ),
    _rule(
        r"(memory\.[\w.]+|pids\.max|cpu\.[\w.]+)[^:]*: (?:invalid argument|device or resource busy)",
        "the kernel refused a limit ({0})",
        "Check `resources` and `limits` against what the node's cgroup allows.",
    ),
)

# Docker's own connection to containerd broke: nothing is known of the container, and the container isn't to blame.
_MANAGER_AWAY = re.compile(
    r"context canceled|context deadline exceeded|transport is closing|connection error|error while dialing"
    r"|ttrpc: closed|containerd.sock: connect|is shutting down|server is not available",
    re.IGNORECASE,
)


_NETWORK_GONE = re.compile(
    r"cannot join network of a non running container|No such container"
    r"|sandbox container \S+ is not running|failed to find sandbox",
    re.IGNORECASE,
)


def is_network_gone(text: str) -> bool:
    """Say whether the container is fine but the one whose network it joins doesn't run, or is gone."""
    return _NETWORK_GONE.search(text) is not None


def start_failure(name: str, text: str) -> WherryError:
    """Return the error for a container that the manager couldn't start, with its text as the reason.

    StartError, but UnavailableError when the text says that the manager itself was in trouble.
    """
    if _MANAGER_AWAY.search(text):
        return UnavailableError(
            f"cannot start container {name} now", why=text, fix="Docker or containerd is restarting: try again."
        )
    if is_network_gone(text):
        return UnavailableError(
            f"cannot start container {name} now",
            why=text,
            fix="The container that holds its network ended: it is made anew, and then this one.",
        )
    for rule in _START_RULES:
        if match := rule.pattern.search(text):
            groups = [group or "any address" for group in match.groups()]
            return StartError(
                f"cannot start container {name}: {rule.what.format(*groups)}", why=text, fix=rule.fix.format(*groups)
            )
    return StartError(
        f"cannot start container {name}", why=text, fix="See the manager's own words above, and its log on the node."
    )
