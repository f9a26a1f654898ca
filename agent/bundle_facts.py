"""What lies in an OCI bundle, and the runtime that made a container of it. Pure readers of files.

containerd (Docker's as well) keeps a bundle for each container where its shim works: config.json as in the OCI runtime
specification, and options.json with the runtime's name and the folder of its state.
"""

import json
import os
from pathlib import Path
from shlex import quote
from typing import Any

from agent.kernel import Kernel
from agent.process_facts import command_line
from manifests.layers import Fact, Layer, LayerKind

_CONTAINERD_STATE = "/run/containerd"


def bundle_layer(bundle: Path) -> Layer | None:
    """Return the bundle's own words; None if there is no readable one."""
    file = bundle / "config.json"
    config = _json(file)
    if not config:
        return None
    linux = config.get("linux") or {}
    values = {
        "ociVersion": config.get("ociVersion"),
        "path": (config.get("root") or {}).get("path"),
        "cwd": (config.get("process") or {}).get("cwd"),
        "cgroupsPath": linux.get("cgroupsPath"),
    }
    notes = {"path": "where its file system is mounted", "cwd": "where its first process begins"}
    facts = [
        Fact(
            name=name,
            value=str(value),
            note=notes.get(name, ""),
            command=f'grep -oE \'"{name}": *"[^"]*"\' {quote(str(file))}',
        )
        for name, value in values.items()
        if value
    ]
    made = ", ".join(str(n.get("type")) for n in linux.get("namespaces") or [] if not n.get("path"))
    note = f"asks for namespaces of its own: {made}" if made else ""
    return Layer(
        kind=LayerKind.BUNDLE, name=str(bundle), note=note, command=f"cat {quote(str(file))}", facts=tuple(facts)
    )


def runtime_layer(name: str, state: list[str], *, pid: int, note: str = "") -> Layer:
    """Return an OCI runtime, by the command that tells the state of a container."""
    command = " ".join(map(quote, state))
    facts = (
        Fact(name="status", value="running", command=command),
        Fact(name="pid", value=str(pid), command=command),
    )
    return Layer(kind=LayerKind.RUNTIME, name=name, note=note, command=command, facts=facts)


def containerd_layers(kernel: Kernel, shim: int, container: str, pid: int) -> tuple[Layer, ...]:
    """Return bundle and runtime of a container whose shim is containerd's; nothing where it is another one's."""
    words = command_line(kernel, shim).split(" ")
    if not words[0].rpartition("/")[2].startswith("containerd-shim"):
        return ()
    try:
        folder = Path(os.readlink(f"{kernel.proc}/{shim}/cwd"))
    except OSError:
        return ()
    bundle = folder.parent / container  # one shim may keep all of a pod
    if not (bundle / "config.json").exists():
        bundle = folder
    namespace = words[words.index("-namespace") + 1] if "-namespace" in words[:-1] else bundle.parent.name
    options = _json(bundle / "options.json")
    name = str(options.get("binary_name") or "runc")
    root = str(options.get("root") or f"{_CONTAINERD_STATE}/runc")
    found = bundle_layer(bundle)
    runtime = runtime_layer(
        name.rpartition("/")[2], [name, "--root", f"{root}/{namespace}", "state", container], pid=pid
    )
    return (found, runtime) if found else (runtime,)


def _json(file: Path) -> dict[str, Any]:
    try:
        found = json.loads(file.read_text())
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}
