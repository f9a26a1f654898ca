"""Messages of OCI runtimes in words that say what to do. Pure; a miss costs clarity only."""

import re

from agent.driver import StartError
from manifests.errors import WherryError

# Of runc and of crun, which word the same things differently; runsc says what runc says.
_START_RULES = (
    (
        r'exec: "([^"]*)": (?:executable file not found|stat [^:]*: no such file|no such file)'
        r"|executable file [`']([^`']*)[`'] not found|error finding executable \"([^\"]*)\"",
        "the image has no executable {0}",
        "Check `command` against the image; a shell's built-in needs `command: [sh, -c, ...]`.",
    ),
    (
        r"exec (\S+): exec format error|exec (\S+): Exec format error|open executable: Exec format",
        "{0} is not a program for this machine",
        "Use an image for this node's architecture; a script needs a first line such as `#!/bin/sh`.",
    ),
    (
        r"exec (\S+): [Nn]o such file or directory",
        "{0} can't run in this image",
        "Its interpreter or loader is missing in the image: check the first line of a script, or the image's libc.",
    ),
    (
        r'exec: "?([^":]*)"?: permission denied|open executable `?([^`]*)`?: Permission denied',
        "{0} is not executable in the image",
        "Check `command`, the file's mode in the image, and `user`.",
    ),
    (
        r'chdir to cwd \("([^"]*)"\)|chdir to `([^`]*)`',
        "the working directory {0} can't be entered",
        "Check `workingDir` against the image, and that `user` may enter it.",
    ),
    (
        r"(memory\.[\w.]+|pids\.max|cpu\.[\w.]+)\S*: ?(?:[Ii]nvalid argument|[Dd]evice or resource busy)",
        "the kernel refused a limit ({0})",
        "Check `resources` and `limits` against what the node's cgroup allows.",
    ),
)


def start_failure(name: str, text: str) -> WherryError:
    """Return the error for a container that its runtime couldn't start, with the runtime's text as the reason."""
    for pattern, what, fix in _START_RULES:
        if match := re.search(pattern, text, re.DOTALL):
            named = next((group for group in match.groups() if group), "it")
            return StartError(f"cannot start container {name}: {what.format(named)}", why=text, fix=fix)
    return StartError(f"cannot start container {name}", why=text, fix="See the runtime's own words above.")


def is_missing_program(text: str) -> bool:
    """Say whether a runtime's answer to `exec` means that there is no such program."""
    return re.search(r"executable file .*not found|[Nn]o such file or directory|error finding exec", text) is not None
