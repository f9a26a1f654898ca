"""What lies in an OCI bundle, and the runtime that made a container of it. Pure readers of files.

containerd (Docker's as well) keeps a bundle for each container where its shim works: config.json as in the OCI runtime
specification, and options.json with the runtime's name and the folder of its state. conmon has both in its arguments.
"""

import json
import os
from collections.abc import Sequence
from itertools import pairwise
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


def layers_of_shim(kernel: Kernel, shim: int, container: str, pid: int) -> tuple[Layer, ...]:
    """Return bundle and runtime of a container, as its shim knows them; nothing where that is one of another kind."""
    words = command_line(kernel, shim).split(" ")
    program = words[0].rpartition("/")[2]
    if program.startswith("containerd-shim"):
        return _of_containerd(kernel, shim, words, container, pid)
    return _of_conmon(words, container, pid) if program == "conmon" else ()


def _of_containerd(kernel: Kernel, shim: int, words: Sequence[str], container: str, pid: int) -> tuple[Layer, ...]:
    try:
        folder = Path(os.readlink(f"{kernel.proc}/{shim}/cwd"))
    except OSError:
        return ()
    bundle = folder.parent / container  # one shim may keep all of a pod
    if not (bundle / "config.json").exists():
        bundle = folder
    namespace = next(iter(_given(words, "-namespace")), bundle.parent.name)
    options = _json(bundle / "options.json")
    name = str(options.get("binary_name") or "runc")
    root = str(options.get("root") or f"{_CONTAINERD_STATE}/runc")
    return _pair(bundle, [name, "--root", f"{root}/{namespace}", "state", container], pid)


def _of_conmon(words: Sequence[str], container: str, pid: int) -> tuple[Layer, ...]:
    """conmon was told all of it (`conmon --help`)."""
    bundles, runtimes = _given(words, "-b", "--bundle"), _given(words, "-r", "--runtime")
    if not bundles or not runtimes:
        return ()
    return _pair(
        Path(bundles[0]), [runtimes[0], *_without_log(_given(words, "--runtime-arg")), "state", container], pid
    )


def _pair(bundle: Path, state: list[str], pid: int) -> tuple[Layer, ...]:
    found, runtime = bundle_layer(bundle), runtime_layer(state[0].rpartition("/")[2], state, pid=pid)
    return (found, runtime) if found else (runtime,)


def _given(words: Sequence[str], *flags: str) -> list[str]:
    """Return what stands behind the flags, or in their word after `=`.

    >>> _given(["conmon", "-b", "/b", "--runtime-arg", "--root", "--runtime-arg=/r"], "--runtime-arg")
    ['--root', '/r']
    """
    found = []
    for before, word in pairwise(["", *words]):
        flag, equals, value = word.partition("=")
        if before in flags:
            found.append(word)
        elif equals and flag in flags:
            found.append(value)
    return found


def _without_log(arguments: Sequence[str]) -> list[str]:
    """Return a runtime's arguments without those that would hide from us what it says.

    >>> _without_log(["--log-format=json", "--log", "/l", "--root", "/r"])
    ['--root', '/r']
    """
    pairs = pairwise(["", *arguments])
    return [word for before, word in pairs if not word.startswith("--log") and before != "--log"]


def _json(file: Path) -> dict[str, Any]:
    try:
        found = json.loads(file.read_text())
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}
