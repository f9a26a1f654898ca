"""A command in a container of the CRI, attached to, by the OCI runtime underneath.

The CRI itself offers a URL for this, on which containerd speaks SPDY, or a WebSocket that can't end the input. The
runtime below it keeps what it knows of a container in a folder of a known place, and takes commands from anybody who is
root on the node; the container's user, capabilities and seccomp rules hold for them as for the CRI's own.
"""

import json
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

from agent.driver import ExecSpec
from agent.drivers.oci_exec import start_inside
from agent.drivers.oci_runtime import Runtime
from agent.drivers.oci_workers import run_command
from agent.drivers.runtime_attach import RuntimeProcess
from manifests.errors import DriverError

# Where containerd's shims, and CRI-O, let runtimes keep their state; and which file tells whose it is.
_ROOTS = ("/run/containerd/runc/k8s.io", "/run/runc", "/run/crun")
_BY_FILE = {"state.json": "runc", "status": "crun"}


def start_attached(container: str, spec: ExecSpec) -> tuple[RuntimeProcess, Callable[[bool], None]]:
    """Start it, and return it with what ends it. Blocks for a moment: for a thread."""
    runtime = _runtime_of(container)
    code, text = run_command(runtime.command("state", container))
    if code != 0:
        raise DriverError(f"cannot enter container {container[:12]}", why=text, fix="Does it still run?")
    bundle = Path(json.loads(text)["bundle"])
    files = Path(tempfile.mkdtemp(prefix="wherry-exec-"))
    try:
        process, end = start_inside(runtime, container, bundle, files, spec)
    except BaseException:
        shutil.rmtree(files, ignore_errors=True)
        raise

    def end_all(is_running: bool) -> None:  # what a callback is given
        end(is_running)
        shutil.rmtree(files, ignore_errors=True)

    return process, end_all


def _runtime_of(container: str) -> Runtime:
    """Return the runtime that runs the container."""
    for root in _ROOTS:
        for file, name in _BY_FILE.items():
            if Path(root, container, file).exists() and (path := shutil.which(name)):
                return Runtime(name, path, (), "", Path(root))
    raise DriverError(
        f"cannot enter container {container[:12]}",
        why=f"neither runc nor crun keeps it in {', '.join(_ROOTS)}",
        fix="On nodes with the cri driver this needs runc or crun in its usual place; `crictl exec` goes another way.",
    )
