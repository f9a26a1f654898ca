"""Runs a command inside a container by its runtime. Blocks: for a thread of agent.drivers.oci_workers."""

import json
import os
import secrets
import selectors
import signal
import subprocess
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from agent.driver import ContainerState, ExecResult, ExecSpec
from agent.drivers.oci_folder import ContainerFolder
from agent.drivers.oci_runtime import Runtime
from agent.drivers.oci_words import is_missing_program
from agent.drivers.oci_workers import run_command
from agent.drivers.runtime_attach import RuntimeProcess, start
from manifests.errors import DriverError, TimedOutError, UnavailableError

MOST_OUTPUT_BYTES = 4096
PID_WAIT_S = 2.0
NO_PROGRAM = 127  # as a shell says it
_RUNTIME_FAILED = (1, 255)  # what a runtime ends with when it couldn't run the command


def execute(runtime: Runtime, folder: ContainerFolder, command: Sequence[str], timeout_s: float) -> ExecResult:
    """Return how it ended. When its time is up it is killed with its children, and TimedOutError raised."""
    if folder.look().state is not ContainerState.RUNNING:
        raise DriverError(
            f"cannot run {command[0]} in container {folder.id[:12]}",
            why="the container is not running",
            fix="Only a running container takes commands.",
        )
    pid_file = folder.path / f"exec-{secrets.token_hex(4)}"
    process_file = pid_file.with_suffix(".json")
    process_file.write_text(json.dumps(json.loads(folder.config.read_text())["process"] | {"args": list(command)}))
    deadline_s = time.monotonic() + timeout_s
    process = subprocess.Popen(
        # Told in full, it is kept apart as the container's own process is: crun would run it as root.
        runtime.command("exec", _pid_flag(runtime), str(pid_file), "--process", str(process_file), folder.id),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    try:
        output = _output(process, deadline_s)
        code = process.wait(max(0.0, deadline_s - time.monotonic()))
    except (TimeoutError, subprocess.TimeoutExpired) as late:
        raise TimedOutError(
            f"{command[0]} in container {folder.id[:12]} did not end within {timeout_s:g} s",
            fix="Raise the check's `timeout`, or make the command faster.",
        ) from late
    finally:
        if process.poll() is None:
            _kill_command(runtime, pid_file, folder.id)
            process.kill()
            process.wait()
        if process.stdout is not None:
            process.stdout.close()
        pid_file.unlink(missing_ok=True)
        process_file.unlink(missing_ok=True)
    if code in _RUNTIME_FAILED and not pid_file.exists() and is_missing_program(output.decode(errors="replace")):
        code = NO_PROGRAM
    return ExecResult(code, output)


def start_attached(
    runtime: Runtime, folder: ContainerFolder, spec: ExecSpec
) -> tuple[RuntimeProcess, Callable[[bool], None]]:
    """Start a command to which somebody is attached; return it, and what ends it: see `attached`."""
    if folder.look().state is not ContainerState.RUNNING:
        raise DriverError(
            f"cannot run {spec.command[0]} in container {folder.id[:12]}",
            why="the container is not running",
            fix="Only a running container takes commands.",
        )
    return start_inside(runtime, folder.id, folder.path, folder.path, spec)


def start_inside(
    runtime: Runtime, container: str, bundle: Path, files: Path, spec: ExecSpec
) -> tuple[RuntimeProcess, Callable[[bool], None]]:
    """Have a runtime start a command in a container; `files` is for files of our own."""
    pid_file = files / f"exec-{secrets.token_hex(4)}"
    made = pid_file.with_suffix(".json")
    words = [_pid_flag(runtime), str(pid_file), container]
    if spec.has_terminal:
        # By a file, as crun's --env leaves out the container's own variables.
        made.write_text(json.dumps(_process(bundle, spec)))
        words = ["--process", str(made), *words]
    else:
        words += spec.command
    process = start(runtime.command("exec", *words), spec, pid_file)

    def end(is_running: bool) -> None:  # what a callback is given
        if is_running:
            _await_pid(pid_file)
            _kill_command(runtime, pid_file, container)
        pid_file.unlink(missing_ok=True)
        made.unlink(missing_ok=True)

    return process, end


def _await_pid(pid_file: Path) -> None:
    """Return once the runtime has told the command's pid: runc does so a moment after the command has begun."""
    until_s = time.monotonic() + PID_WAIT_S
    while time.monotonic() < until_s:
        with suppress(OSError):
            if pid_file.read_text():
                return
        time.sleep(0.01)


def _process(bundle: Path, spec: ExecSpec) -> dict[str, Any]:
    """Return what the runtime is to run: like the container's own process, but for the command and its terminal."""
    own: dict[str, Any] = json.loads((bundle / "config.json").read_text())["process"]
    env = [word for word in own.get("env", []) if not word.startswith("TERM=")]
    size = {"width": spec.columns, "height": spec.rows}
    terminal = {"terminal": True, "consoleSize": size, "env": [*env, "TERM=xterm"]}
    return own | {"args": list(spec.command), **terminal}


def _output(process: subprocess.Popen[bytes], deadline_s: float) -> bytes:
    """Read until the output closes, and return its beginning. Raises TimeoutError."""
    assert process.stdout is not None
    output = bytearray()
    with selectors.DefaultSelector() as selector:
        selector.register(process.stdout, selectors.EVENT_READ)
        while True:
            if not selector.select(max(0.0, deadline_s - time.monotonic())):
                raise TimeoutError
            data = os.read(process.stdout.fileno(), 65536)
            if not data:
                return bytes(output)
            output += data[: MOST_OUTPUT_BYTES - len(output)]


def _pid_flag(runtime: Runtime) -> str:
    """Return the flag for where the command's process id is written: with a kernel of its own, the one in there."""
    return "--internal-pid-file" if runtime.name == "runsc" else "--pid-file"


def _kill_command(runtime: Runtime, pid_file: Path, container: str) -> None:
    """Kill the command and its children: to kill the runtime alone would leave them. The cgroup proves whose it is.

    With a kernel of its own only the command itself can be named.
    """
    with suppress(OSError, ValueError, UnavailableError):
        pid = int(pid_file.read_text())
        if runtime.name == "runsc":
            run_command(runtime.command("kill", "--pid", str(pid), container, "9"))
        elif container in Path(f"/proc/{pid}/cgroup").read_text():
            _kill(pid)


def _kill(pid: int) -> None:
    with suppress(OSError):
        os.kill(pid, signal.SIGSTOP)  # so that it makes no more children while they are counted
    children = [int(child) for file in Path(f"/proc/{pid}/task").glob("*/children") for child in _words(file)]
    for child in children:
        _kill(child)
    with suppress(OSError):
        os.kill(pid, signal.SIGKILL)


def _words(file: Path) -> list[str]:
    try:
        return file.read_text().split()
    except OSError:
        return []
