"""OCI runtimes (runc, crun, runsc, ...) and conmon, which keeps a container alive without us: their commands.

Methods block and belong in the threads of agent.drivers.oci_workers. Flags: `conmon --help`, `runc --help`.
"""

import json
import os
import re
import select
import shutil
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from agent.drivers.oci_folder import ContainerFolder
from agent.drivers.oci_words import start_failure
from agent.drivers.oci_workers import run_command
from manifests.errors import DriverError, UnavailableError

CREATE_TIMEOUT_S = 30.0
# In the order in which they are preferred. runsc takes the sockets of the container's own network namespace: its own
# network stack refuses namespaces that get their interfaces after they were made.
KNOWN: Mapping[str, tuple[str, ...]] = {
    "crun": ("crun",),
    "runc": ("runc",),
    "youki": ("youki",),
    "runsc": ("runsc", "--network=host"),
    "kata": ("kata-runtime",),
}
_NEVER_DEFAULT = ("runsc", "kata")  # for who asks: they cost more and don't run everything
LONGEST_LOG_BYTES = 64 << 20  # what conmon keeps of a log that no agent rotates; then it begins anew
_SEARCH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


@dataclass(frozen=True, slots=True)
class Runtime:
    """One runtime of this node."""

    name: str
    path: str
    arguments: tuple[str, ...]
    version: str
    state: Path  # the folder for its own files

    def command(self, *words: str) -> list[str]:
        return [self.path, *self.arguments, "--root", str(self.state), *words]

    def create(self, folder: ContainerFolder, conmon: str) -> None:
        """Create the container, paused before its first instruction. Raises StartError with the runtime's reason."""
        ours, theirs = os.pipe()
        try:
            with subprocess.Popen(
                self._conmon_command(folder, conmon),
                env={"PATH": _SEARCH, "TZ": "UTC", "_OCI_SYNCPIPE": str(theirs)},  # TZ: for the times in logs
                pass_fds=[theirs],
                cwd=folder.path,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                start_new_session=True,
            ):  # it leaves a child behind, and ends
                os.close(theirs)
                theirs = -1
                told = _line(ours, CREATE_TIMEOUT_S)
        finally:
            os.close(ours)
            if theirs >= 0:
                os.close(theirs)
        if not told:
            raise UnavailableError(
                f"cannot start container {folder.id[:12]} now",
                why=f"conmon did not say within {CREATE_TIMEOUT_S:g} s what {self.name} did",
                fix="Look at the load of this node, and at `dmesg`.",
            )
        answer = json.loads(told)
        if int(answer.get("pid", answer.get("data", -1))) <= 0:
            raise start_failure(folder.spec.name, _plain(str(answer.get("message", "no reason was given"))))

    def start(self, folder: ContainerFolder) -> None:
        """Let it run. Raises StartError with the runtime's reason."""
        code, text = run_command(self.command("start", folder.id))
        if code != 0:
            raise start_failure(folder.spec.name, _plain(text))

    def status(self, container: str) -> str:
        """Return what the runtime calls its state: created, running, stopped; "" if it doesn't know it."""
        code, text = run_command(self.command("state", container))
        with suppress(ValueError, KeyError):
            if code == 0:
                return str(json.loads(text)["status"])
        return ""

    def kill(self, container: str, name: str) -> None:
        """Send a signal; fine if it has ended."""
        number = getattr(signal, name, None)
        if not isinstance(number, signal.Signals):
            raise DriverError(f"cannot send {name}", why="there is no such signal", fix="Correct `stop.signal`.")
        run_command(self.command("kill", container, str(int(number))))

    def delete(self, folder: ContainerFolder) -> None:
        """Kill what is left of it and have the runtime forget it; fine if it knows nothing of it."""
        run_command(self.command("delete", "--force", folder.id))
        folder.kill_rest()

    def _conmon_command(self, folder: ContainerFolder, conmon: str) -> list[str]:
        arguments = [
            word for argument in (*self.arguments, "--root", str(self.state)) for word in ("--runtime-arg", argument)
        ]
        return [
            *(conmon, "--api-version", "1", "--cid", folder.id, "--cuuid", folder.id, "--name", folder.id),
            *("--runtime", self.path, *arguments, "--bundle", str(folder.path), "--full-attach"),
            *("--container-pidfile", str(folder.pid_file), "--conmon-pidfile", str(folder.shim_pid_file)),
            *("--exit-dir", str(folder.exit_file.parent), "--persist-dir", str(folder.path)),
            *("--log-path", f"k8s-file:{folder.log}", "--log-level", "error"),
            *("--log-size-max", str(LONGEST_LOG_BYTES)),
        ]


def runtimes(state: Path) -> dict[str, Runtime]:
    """Return the runtimes that are installed, in the order in which they are preferred."""
    found = {}
    for name, (program, *arguments) in KNOWN.items():
        path = shutil.which(program, path=f"{os.environ.get('PATH', '')}:{_SEARCH}")
        if path is None:
            continue
        with suppress(UnavailableError):
            code, text = run_command([path, "--version"])
            version = re.search(r"\d+\.\d+\S*|\d{8}\S*", text)
            if code == 0:
                found[name] = Runtime(name, path, tuple(arguments), version.group() if version else "?", state / name)
    return found


def default_of(found: Mapping[str, Runtime], folder: Path) -> tuple[Runtime | None, str]:
    """Return the first that works on this machine, tried on a container that never runs, and why others don't."""
    refusals: list[str] = []
    for runtime in found.values():
        if runtime.name in _NEVER_DEFAULT:
            continue
        refusal = _refusal(runtime, folder)
        if not refusal:
            return runtime, "; ".join(refusals)
        refusals.append(f"{runtime.name}: {refusal}")
    return None, "; ".join(refusals)


def _refusal(runtime: Runtime, folder: Path) -> str:
    """Return why the runtime can't create a container here, "" if it can."""
    name = f"probe-{os.getpid()}-{time.monotonic_ns()}"
    bundle = folder / name
    for needed in ("proc", "dev"):
        (bundle / "root" / needed).mkdir(parents=True)
    config = {
        "ociVersion": "1.0.2",
        "process": {"terminal": False, "user": {"uid": 0, "gid": 0}, "args": ["/proc/self/exe"], "cwd": "/"},
        "root": {"path": "root", "readonly": True},
        "mounts": [{"destination": "/proc", "type": "proc", "source": "proc"}],
        "linux": {
            "namespaces": [{"type": "pid"}, {"type": "mount"}],
            "cgroupsPath": f"/wherry-{name}",
            "resources": {"pids": {"limit": 16}},
        },
    }
    (bundle / "config.json").write_text(json.dumps(config))
    try:
        code, text = _run_quietly(runtime.command("create", "--bundle", str(bundle), name), bundle / "output")
        run_command(runtime.command("delete", "--force", name))
        return "" if code == 0 else _plain(text)
    except UnavailableError as error:
        return f"{error.what}: {error.why}"
    finally:
        shutil.rmtree(bundle, ignore_errors=True)


def _run_quietly(command: Sequence[str], output: Path) -> tuple[int, str]:
    """Run a command whose child lives on with its output: a pipe would stay open, so it goes to a file."""
    with output.open("wb") as file:
        try:
            done = subprocess.run(
                command, stdin=subprocess.DEVNULL, stdout=file, stderr=file, timeout=CREATE_TIMEOUT_S, check=False
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            return 1, str(error)
    return done.returncode, output.read_text(errors="replace").strip()


def _line(descriptor: int, timeout_s: float) -> bytes:
    """Return what comes until a line's end, or until the other side closes; b"" if neither does in time."""
    data, deadline_s = b"", time.monotonic() + timeout_s
    while b"\n" not in data:
        left_s = deadline_s - time.monotonic()
        if left_s <= 0 or not select.select([descriptor], [], [], left_s)[0]:
            return b""
        piece = os.read(descriptor, 65536)
        if not piece:
            break
        data += piece
    return data


def _plain(text: str) -> str:
    """Return a runtime's message without its log's trimmings: crun and runc write `time=... level=error msg="..."`."""
    messages = re.findall(r'msg="((?:[^"\\]|\\.)*)"', text) or re.findall(r'"msg":\s*"((?:[^"\\]|\\.)*)"', text)
    plain = messages[-1].replace('\\"', '"').replace("\\\\", "\\") if messages else text
    return plain.strip() or "it gave no reason"
