"""All that the oci driver knows of one container is in a folder, so that an agent that restarts finds it again.

    spec.json    what was asked for                 config.json  the bundle, written at the start
    upper work   what the container wrote           merged       where its file system is mounted
    pid          its first process                  shim.pid     conmon, its parent
    started      when it was started                error        why it could not be
    network.json its address and ports              log log.1    what it wrote, as conmon puts it
    layers.json  what its file system lies on
    oom          there, once the kernel killed one of its processes

The exit code is in a file of its own, in a folder for those of all containers. Methods block for a moment.
"""

import json
import os
import secrets
import signal
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from agent.cgroups import ROOT, is_v2
from agent.driver import (
    Container,
    ContainerId,
    ContainerSpec,
    ContainerState,
    Isolation,
    Limits,
    Mount,
    PublishedPort,
    Tmpfs,
)

UNKNOWN_EXIT = 255  # as other managers say when the exit code is lost
KILL_S = 5.0


@dataclass(frozen=True, slots=True)
class ContainerFolder:
    path: Path
    exits: Path
    spec: ContainerSpec
    runtime: str  # its name

    @property
    def id(self) -> ContainerId:
        return ContainerId(self.path.name)

    @property
    def config(self) -> Path:
        return self.path / "config.json"

    @property
    def pid_file(self) -> Path:
        return self.path / "pid"

    @property
    def shim_pid_file(self) -> Path:
        return self.path / "shim.pid"

    @property
    def exit_file(self) -> Path:
        return self.exits / self.id

    @property
    def started(self) -> Path:
        return self.path / "started"

    @property
    def error(self) -> Path:
        return self.path / "error"

    @property
    def log(self) -> Path:
        return self.path / "log"

    @property
    def network(self) -> Path:
        return self.path / "network.json"

    def layers(self) -> tuple[str, ...] | None:
        """Return the layers that it lies on, as agent.drivers.oci_images names them; None if that wasn't noted."""
        try:
            return tuple(json.loads((self.path / "layers.json").read_text()))
        except FileNotFoundError:
            return None

    def note_layers(self, layers: tuple[str, ...]) -> None:
        (self.path / "layers.json").write_text(json.dumps(layers))

    @property
    def cgroup(self) -> str:
        return f"{self.spec.cgroup_parent}/{self.id}"

    @classmethod
    def create(cls, path: Path, exits: Path, spec: ContainerSpec, runtime: str) -> "ContainerFolder":
        """Make the folder, whole or not at all. Raises FileExistsError if it is there."""
        draft = path.with_name(f".{secrets.token_hex(8)}")
        draft.mkdir(mode=0o700)
        for name in ("upper", "work", "merged"):
            (draft / name).mkdir(mode=0o755)
        (draft / "spec.json").write_text(json.dumps({"spec": asdict(spec), "runtime": runtime}))
        try:
            draft.rename(path)
        except OSError as error:
            raise FileExistsError(str(path)) from error
        return cls(path, exits, spec, runtime)

    @classmethod
    def load(cls, path: Path, exits: Path) -> "ContainerFolder":
        """Raises OSError, ValueError, KeyError or TypeError if it is no folder of a container."""
        stored = json.loads((path / "spec.json").read_text())
        fields = stored["spec"]
        fields |= {name: tuple(fields[name]) for name in ("command", "args", "devices")}
        fields["limits"] = Limits(**fields["limits"])
        fields["ports"] = tuple(PublishedPort(**port) for port in fields["ports"])
        fields["mounts"] = tuple(Mount(**mount) for mount in fields["mounts"])
        fields["isolation"] = _isolation(fields.get("isolation", {}))
        return cls(path, exits, ContainerSpec(**fields), stored["runtime"])

    def look(self) -> Container:
        """Return the container as it is now."""
        shim_lives = self.shim_lives()  # before its last word is looked for
        state, code, finished_s = self._state(shim_lives=shim_lives)
        started_s = _modified_s(self.started) or (_modified_s(self.pid_file) if code is not None else 0.0)
        return Container(
            id=self.id,
            name=self.spec.name,
            labels=self.spec.labels,
            image=self.spec.image,
            state=state,
            pid=_number_in(self.pid_file) if state is ContainerState.RUNNING else 0,
            exit_code=code,
            oom_killed=code is not None and self._was_oom_killed(),
            error=_text_in(self.error),
            started_s=started_s if state is not ContainerState.CREATED else 0.0,
            finished_s=max(started_s, finished_s) if code is not None else 0.0,
            address=self._address(),
            network_of=self.spec.network_of or "",
        )

    def _state(self, *, shim_lives: bool) -> tuple[ContainerState, int | None, float]:
        """Return its state, and once it has ended its exit code and when that was."""
        with suppress(OSError, ValueError):
            return ContainerState.EXITED, int(self.exit_file.read_text()), _modified_s(self.exit_file)
        if not self.started.exists():
            return ContainerState.CREATED, None, 0.0
        if shim_lives:
            return ContainerState.RUNNING, None, 0.0
        return ContainerState.EXITED, UNKNOWN_EXIT, _modified_s(self.started)

    def is_lost(self) -> bool:
        """Say whether its shim ended without a word: killed, or by a reboot. The container may run on, unseen."""
        return self.started.exists() and not self.shim_lives() and not self.exit_file.exists()

    def shim_lives(self) -> bool:
        return self._is_shim(_number_in(self.shim_pid_file))

    def open_shim(self) -> int | None:
        """Return a descriptor (pidfd) that becomes readable when its shim ends; None if that has ended."""
        pid = _number_in(self.shim_pid_file)
        if not pid:
            return None
        try:
            descriptor = os.pidfd_open(pid)
        except OSError:
            return None
        if self._is_shim(pid):  # only now: from here on the number can't pass to another process unnoticed
            return descriptor
        os.close(descriptor)
        return None

    def _is_shim(self, pid: int) -> bool:
        with suppress(OSError):
            return pid > 0 and self.id.encode() in Path(f"/proc/{pid}/cmdline").read_bytes()
        return False

    def fail(self, why: str) -> None:
        """Keep why it could not be started, and take back what the try left here."""
        self.error.write_text(why)
        self.forget_run()

    def forget_run(self) -> None:
        for file in (self.exit_file, self.started, self.pid_file, self.shim_pid_file):
            file.unlink(missing_ok=True)

    def kill_rest(self) -> None:
        """Kill every process in its cgroup, and remove that. Where the runtime did so there is nothing left to do."""
        deadline_s = time.monotonic() + KILL_S
        while pids := list(self._processes()):
            for pid in pids:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            if time.monotonic() > deadline_s:
                return  # it hangs in the kernel: who waits for its end says so
            time.sleep(0.01)
        for folder in self._cgroup_folders():
            with suppress(OSError):
                folder.rmdir()

    def _processes(self) -> Iterator[int]:
        for folder in self._cgroup_folders():
            with suppress(OSError):
                for line in (folder / "cgroup.procs").read_text().split():
                    if _is_alive(int(line)):
                        yield int(line)

    def _cgroup_folders(self) -> list[Path]:
        relative = self.cgroup.lstrip("/")
        tops = [ROOT] if is_v2() else [top for top in ROOT.iterdir() if top.is_dir() and not top.is_symlink()]
        return [top / relative for top in tops if (top / relative).is_dir()]

    def _was_oom_killed(self) -> bool:
        """Say whether conmon saw it, or the kernel counted it: conmon may miss the last kill of a container's life."""
        if (self.path / "oom").exists():
            return True
        relative = self.cgroup.lstrip("/")
        file = ROOT / relative / "memory.events" if is_v2() else ROOT / "memory" / relative / "memory.oom_control"
        counts = dict(line.split() for line in _text_in(file).splitlines() if len(line.split()) == 2)
        return counts.get("oom_kill", "0") != "0"

    def _address(self) -> str:
        with suppress(OSError, ValueError, KeyError):
            return str(json.loads(self.network.read_text())["address"])
        return ""


def _isolation(fields: dict[str, Any]) -> Isolation:
    """Return what was stored; nothing by who wrote before there was anything."""
    given = fields.get("capabilities")
    lists = {"tmpfs": tuple(Tmpfs(**tmpfs) for tmpfs in fields.get("tmpfs", ()))}
    ulimits = {name: (soft, hard) for name, (soft, hard) in fields.get("ulimits", {}).items()}
    return Isolation(**fields | lists | {"capabilities": given and tuple(given), "ulimits": ulimits})


def _modified_s(file: Path) -> float:
    try:
        return file.stat().st_mtime
    except OSError:
        return 0.0


def _text_in(file: Path) -> str:
    try:
        return file.read_text()
    except OSError:
        return ""


def _number_in(file: Path) -> int:
    text = _text_in(file).strip()
    return int(text) if text.isdecimal() else 0


def _is_alive(pid: int) -> bool:
    """Say whether it runs; a zombie doesn't, and may stay for long where process 1 is slow to reap."""
    stat = _text_in(Path(f"/proc/{pid}/stat"))
    return bool(stat) and stat.rpartition(")")[2].split()[0] not in "ZX"
