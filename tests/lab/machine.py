"""A Debian machine in a container with an init of its own: what a Vagrant box is, less the kernel, in half a minute.

For the tests of provisioning. Its packages come from where this machine gets its own; then it runs cut off, in a
network namespace with one address.
"""

import os
import shutil
import subprocess
import time
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from tests.lab.cgroups import Cgroup, hierarchies
from tests.lab.commands import LabError, call, ip
from tests.lab.host import REPOSITORY

SUITE = "bookworm"
INCLUDED = "systemd-sysv,dbus,python3,ca-certificates,iproute2,procps,netbase,kmod"
BUILD_S = 400.0
BOOT_S = 60.0
STOP_S = 30.0
_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
# What this machine needs to reach its registries, the new one needs as well, while it is being made.
_BORROWED = ("etc/resolv.conf", "etc/pip.conf", "etc/ssl/certs/ca-certificates.crt")
_NOT_COPIED = shutil.ignore_patterns(".git", ".venv", ".*_cache", ".hypothesis", ".vagrant", "__pycache__", "build")
# The caller enters the machine's cgroup in each hierarchy, so that the init finds itself at the root of its own.
_BOOT = """
for folder; do
    case $folder in */cpuset/*) for f in cpuset.cpus cpuset.mems; do cat "${folder%/*}/$f" > "$folder/$f"; done;; esac
    echo $$ > "$folder/cgroup.procs"
done
exec systemd-nspawn --quiet --directory="$TREE" --machine="$MACHINE" --boot --register=no --keep-unit \\
    --network-namespace-path="/run/netns/$MACHINE" --console=pipe --capability=all
"""


def why_no_machine() -> str:
    """Return why there can be no such machine here, or nothing."""
    if os.geteuid() != 0:
        return "needs root"
    missing = [c for c in ("mmdebstrap", "systemd-nspawn", "unshare", "nsenter") if shutil.which(c) is None]
    return f"needs {' and '.join(missing)} (apt: mmdebstrap, systemd-container)" if missing else ""


class Machine:
    """A machine that has been made and, within `booted`, runs."""

    def __init__(self, folder: Path) -> None:
        self.tree = folder / "root"
        self.log = folder / "machine.log"
        self.name = f"wherry-{uuid.uuid4().hex[:6]}"
        self._leader = 0

    def build(self) -> None:
        """Make the tree, with the repository in /vagrant."""
        options = ["--variant=minbase", f"--include={INCLUDED}", "--aptopt=Acquire::Check-Valid-Until false"]
        call(["mmdebstrap", "--quiet", *options, SUITE, str(self.tree)], timeout_s=BUILD_S)
        shutil.copytree(REPOSITORY, self.tree / "vagrant", ignore=_NOT_COPIED, symlinks=True)
        for name in _BORROWED:
            if Path("/", name).exists():
                shutil.copy(Path("/", name), self.tree / name)
        (self.tree / "etc/machine-id").write_text("")

    def run_unbooted(self, *command: str) -> None:
        """Run a command in the tree with this machine's network, which the booted machine won't have."""
        refuse_starts = self.tree / "usr/sbin/policy-rc.d"
        refuse_starts.write_text("#!/bin/sh\nexit 101\n")
        refuse_starts.chmod(0o755)
        mounts = 'mount --bind /dev "$0/dev" && mount -t proc proc "$0/proc" && exec chroot "$0" "$@"'
        call(["unshare", "--mount", "sh", "-c", mounts, str(self.tree), *command], timeout_s=BUILD_S)
        refuse_starts.unlink()

    def run(self, *command: str, timeout_s: float = 120.0, env: Mapping[str, str] | None = None) -> str:
        """Run a command in the booted machine and return what it said."""
        clean = ["env", "-i", f"PATH={_PATH}", "HOME=/root", *(f"{k}={v}" for k, v in (env or {}).items())]
        enter = ["nsenter", "-t", str(self._leader), "-m", "-u", "-i", "-n", "-p", "-C"]
        return call([*enter, *clean, *command], timeout_s=timeout_s)

    @contextmanager
    def booted(self, address: str) -> Iterator[None]:
        """Run the machine with that one address, and leave nothing of it behind."""
        cgroup = Cgroup(f"/{self.name}")
        folders = [tree / self.name for tree in hierarchies()]
        ip(f"netns add {self.name}")
        try:
            ip("link set lo up", "link add eth1 type bridge", "link set eth1 up", netns=self.name)
            ip(f"addr add {address}/24 dev eth1", f"route add default dev eth1 src {address}", netns=self.name)
            for folder in folders:
                folder.mkdir()
            with self.log.open("wb") as log:
                process = self._start(folders, log.fileno())
            try:
                self._await_boot(process)
                yield
            finally:
                _stop(process)
        finally:
            cgroup.kill()
            cgroup.remove()
            ip(f"netns del {self.name}")

    def _start(self, folders: list[Path], log: int) -> "subprocess.Popen[bytes]":
        settings = {"TREE": str(self.tree), "MACHINE": self.name}
        env = {**os.environ, **settings, "SYSTEMD_NSPAWN_API_VFS_WRITABLE": "1", "SYSTEMD_SECCOMP": "0"}
        command = ["sh", "-euc", _BOOT, "boot", *map(str, folders)]
        return subprocess.Popen(command, env=env, stdin=subprocess.DEVNULL, stdout=log, stderr=log)

    def _await_boot(self, process: "subprocess.Popen[bytes]") -> None:
        """Return when its init says that it runs."""
        deadline = time.monotonic() + BOOT_S
        while time.monotonic() < deadline and process.poll() is None:
            children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
            self._leader = int(children[0]) if children else 0
            if self._leader and self._is_up():
                return
            time.sleep(0.2)
        raise LabError(f"the machine didn't boot in {BOOT_S} s: {self.log.read_text(errors='replace')[-2000:]}")

    def _is_up(self) -> bool:
        try:
            # Its container engine writes to the controllers, which are mounted read-only at first.
            if self.run("systemctl", "is-system-running").strip() != "running":
                return False
            remount = "for m in /sys/fs/cgroup/*; do mount -o remount,rw,bind $m 2>/dev/null || true; done"
            self.run("sh", "-c", remount)
        except LabError:
            return False
        return True


def _stop(process: "subprocess.Popen[bytes]") -> None:
    process.terminate()  # the init shuts the machine down
    try:
        process.wait(STOP_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait(STOP_S)
