"""A real dockerd for a test, in a network namespace of its own, which leaves nothing behind.

    async with dockerd(tmp_path) as daemon:
        driver = DockerDriver(daemon.socket)

Nothing touches the root network namespace: dockerd's bridge and iptables rules live and die with its own.
"""

import asyncio
import contextlib
import json
import os
import secrets
import shutil
import signal
import socket
import subprocess
import tempfile
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

from agent.drivers.docker_api import DockerApi
from tests.daemons import END_S, READY_S, alive, cgroups_of, kill_all, read, remove_cgroups, run, unmount_below, until
from tests.images import load_busybox


class DockerdProcess:
    """One dockerd and the containerd that it starts. Methods block; call them by `asyncio.to_thread` where that hurts.

    `netns` names the namespace to enter; without one it makes, and in the end deletes, its own. `bip` None: no bridge.
    """

    def __init__(
        self,
        folder: Path,
        *,
        netns: str | None = None,
        bip: str | None = "172.30.0.1/24",
        cgroup_parent: str | None = None,
        env: Mapping[str, str] | None = None,
    ) -> None:
        self._env = env or {}
        self.id = f"wd-{secrets.token_hex(4)}"
        self.netns = netns or self.id
        self.cgroup_parent = cgroup_parent or f"/{self.id}"
        self.log = folder / f"{self.id}.log"
        # Sockets lie below these: a Unix socket's path holds 107 bytes, and pytest's folders have long names.
        self.folder = Path(tempfile.mkdtemp(prefix=f"{self.id}-", dir="/tmp"))
        self.socket = self.folder / "docker.sock"
        self._exec_root = self.folder / "exec"
        self._pidfile = self.folder / "pid"
        self._bip = bip
        self._own_netns = netns is None
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def start(self) -> None:
        """Start it, also after `kill`, and return when it answers."""
        if self._own_netns and not Path("/run/netns", self.netns).exists():
            run("ip", "netns", "add", self.netns)
            run("ip", "-n", self.netns, "link", "set", "lo", "up")
        # Both would make the next start refuse, or wait 40 s for a process that is gone.
        self._pidfile.unlink(missing_ok=True)
        self._containerd_pidfile.unlink(missing_ok=True)
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                ["nsenter", f"--net=/run/netns/{self.netns}", "dockerd", *self._arguments()],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env={**os.environ, **self._env},
                start_new_session=True,
            )
        until(self._answers, READY_S, f"dockerd did not answer; see {self.log}")

    def kill(self) -> None:
        """SIGKILL it. Its containerd dies with it, its containers live on."""
        containerd = self._containerd_pid()
        self._process_end(signal.SIGKILL)
        if containerd:
            until(lambda: not alive(containerd), END_S, "containerd outlived its dockerd")

    def pause(self) -> None:
        os.kill(self.pid, signal.SIGSTOP)

    def resume(self) -> None:
        """Let it go on; fine if it isn't paused, or dead."""
        if self._process is not None and self._process.poll() is None:
            os.kill(self.pid, signal.SIGCONT)

    def restart(self) -> None:
        """Kill it if it runs, and start it again on the same data."""
        self.kill()
        self.start()

    async def remove_containers(self) -> None:
        api = DockerApi(self.socket, timeout_s=END_S)
        try:
            for container in await api.list_ids({}):
                await api.remove(container)
        finally:
            await api.close()

    def stop(self) -> None:
        """End it and all that it started, whatever state it is in, and delete every trace."""
        shims = [Path(p.read_text().removeprefix("unix://")) for p in self._exec_root.rglob("address") if p.is_file()]
        self.resume()
        if self._process is not None and self._process.poll() is None:
            try:
                self._process_end(signal.SIGTERM)
            except subprocess.TimeoutExpired:
                self._process_end(signal.SIGKILL)
        left = kill_all(self._left_processes)
        for shim in shims:
            shim.unlink(missing_ok=True)
        unmount_below(self.folder)
        if self._own_netns:
            subprocess.run(["ip", "netns", "del", self.netns], check=False, capture_output=True)
        elif self._bip:
            subprocess.run(["ip", "-n", self.netns, "link", "del", "docker0"], check=False, capture_output=True)
        remove_cgroups(self.cgroup_parent)
        shutil.rmtree(self.folder, ignore_errors=True)
        assert not left, f"processes {sorted(left)} of {self.id} could not be killed"

    def _arguments(self) -> list[str]:
        config = self.folder / "daemon.json"
        config.write_text(json.dumps({"live-restore": True, "deprecated-key-path": str(self.folder / "key.json")}))
        network = ["--bip", self._bip] if self._bip else ["--bridge", "none"]
        return [
            *("--data-root", str(self.folder / "data"), "--exec-root", str(self._exec_root)),
            *("--pidfile", str(self._pidfile), "--host", f"unix://{self.socket}", "--config-file", str(config)),
            *("--cgroup-parent", self.cgroup_parent, "--log-level", "warn", *network),
        ]

    def _answers(self) -> bool:
        assert self._process is not None
        if self._process.poll() is not None:
            raise RuntimeError(f"dockerd ended: {self.log.read_text()[-2000:]}")
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(2)
            try:
                connection.connect(str(self.socket))
                connection.sendall(b"GET /_ping HTTP/1.0\r\nHost: docker\r\n\r\n")
                return b" 200 " in connection.recv(64)
            except OSError:
                return False

    def _process_end(self, how: signal.Signals) -> None:
        assert self._process is not None
        self._process.send_signal(how)
        self._process.wait(END_S)

    @property
    def _containerd_pidfile(self) -> Path:
        return self._exec_root / "containerd" / "containerd.pid"

    def _containerd_pid(self) -> int:
        try:
            return int(self._containerd_pidfile.read_text())
        except (OSError, ValueError):
            return 0

    def _left_processes(self) -> Iterator[int]:
        """Yield what still runs: containers by their cgroup, containerd and shims by the folder that they name."""
        mark = str(self._exec_root).encode()
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit() and alive(int(entry.name)) and mark in read(entry / "cmdline"):
                yield int(entry.name)
        for cgroup in cgroups_of(self.cgroup_parent):
            for processes in cgroup.rglob("cgroup.procs"):
                yield from (pid for pid in map(int, read(processes).split()) if alive(pid))


@asynccontextmanager
async def dockerd(
    folder: Path,
    *,
    netns: str | None = None,
    bip: str | None = "172.30.0.1/24",
    cgroup_parent: str | None = None,
    images: bool = True,
    env: Mapping[str, str] | None = None,
) -> AsyncIterator[DockerdProcess]:
    """Run a dockerd, its log in `folder`, with the image agent.drivers.local_image.BUSYBOX_IMAGE if `images`."""
    daemon = DockerdProcess(folder, netns=netns, bip=bip, cgroup_parent=cgroup_parent, env=env)
    try:
        await asyncio.to_thread(daemon.start)
        if images:
            await load_busybox(daemon.socket)
        yield daemon
    finally:
        try:
            daemon.resume()
            with contextlib.suppress(Exception):  # it may be dead or hung: `stop` needs no answer from it
                await daemon.remove_containers()
        finally:
            daemon.stop()
