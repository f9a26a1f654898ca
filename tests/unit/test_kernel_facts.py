"""What is read of namespaces, shims, bundles, cgroups and processes, from folders that stand in for the kernel's."""

import json
from pathlib import Path

import pytest

from agent.bundle_facts import layers_of_shim
from agent.cgroup_facts import cgroup_layer
from agent.kernel import Kernel, cgroup_of
from agent.process_facts import namespaces_layer, processes_layer, shim_layer, shim_of
from manifests.layers import Layer

ID = "c0ffee" * 10


@pytest.fixture
def kernel(tmp_path: Path) -> Kernel:
    return Kernel(tmp_path / "proc", tmp_path / "cgroup")


def write(root: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)


def link(root: Path, links: dict[str, str]) -> None:
    for name, target in links.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).symlink_to(target)


def values(layer: Layer) -> dict[str, tuple[str, str]]:
    return {fact.name: (fact.value, fact.note) for fact in layer.facts}


def test_namespaces_are_its_own_the_hosts_or_shared(kernel: Kernel) -> None:
    for pid, inodes in {"self": (1, 2, 3), "7": (1, 12, 13), "8": (1, 12, 23)}.items():
        names = zip(("user", "net", "mnt"), inodes, strict=True)
        link(kernel.proc, {f"{pid}/ns/{name}": f"{name}:[{inode}]" for name, inode in names})
    layer = namespaces_layer(kernel, 7, {"app": 7, "the group's sandbox": 8})
    assert values(layer) == {
        "mnt": ("13", "its own"),
        "net": ("12", "shared with the group's sandbox"),
        "user": ("1", "the host's"),
    }
    assert layer.note == "enter them: nsenter --target 7 --mount --net"


def test_version_2_has_its_limits_and_those_above(kernel: Kernel) -> None:
    write(kernel.proc, {"7/cgroup": f"0::/wherry/n1/{ID}\n"})
    write(kernel.cgroups, {"cgroup.controllers": "cpu memory pids\n", "cpu.stat": "usage_usec 9\n"})
    write(kernel.cgroups / "wherry", {"memory.max": "max\n", "cpu.max": "max 100000\n", "pids.max": "max\n"})
    write(kernel.cgroups / "wherry/n1", {"memory.max": "2147483648\n", "cpu.max": "150000 100000\n"})
    own = {"cpu.max": "20000 100000\n", "memory.max": "67108864\n", "memory.high": "max\n", "io.max": ""}
    own |= {"cpu.stat": "usage_usec 12\nnr_throttled 3\n", "memory.current": "1048576\n"}
    own |= {"cpu.pressure": "some avg10=1.50 avg60=0.00 avg300=0.00 total=5\n"}
    write(kernel.cgroups / "wherry/n1" / ID, own)
    cgroup = cgroup_of(kernel, 7, ID)
    assert cgroup is not None
    layer = cgroup_layer(kernel, cgroup, 7)
    found = values(layer)
    assert found["cpu.max"] == ("20000 100000", "200m of a core")
    assert found["memory.max"] == ("67108864", "64Mi")
    assert found["memory.high"] == ("max", "no limit")
    assert found["cpu.stat: nr_throttled"] == ("nr_throttled 3", "")
    assert found["cpu.pressure"][1] == "waited for cpu in 1.50 % of the last 10 s"
    assert "io.max" not in found
    assert {fact.name for fact in layer.facts if fact.is_live} >= {"memory.current", "cpu.pressure"}
    (above,) = layer.below  # the one that limits nothing isn't listed
    assert above.name == "/wherry/n1"
    assert values(above) == {"cpu.max": ("150000 100000", "1.5 cores"), "memory.max": ("2147483648", "2Gi")}


def test_processes_have_two_numbers_and_those_of_inner_cgroups_count(kernel: Kernel) -> None:
    write(kernel.proc, {"7/cgroup": f"0::/wherry/{ID}\n", "7/cmdline": "sh\0-c\0true\0", "8/cmdline": ""})
    write(kernel.proc, {"7/status": "Name:\tsh\nNSpid:\t7\t1\nVmRSS:\t 12 kB\n", "8/status": "NSpid:\t8\t2\n"})
    write(kernel.cgroups, {"cgroup.controllers": "pids\n"})
    write(kernel.cgroups / "wherry" / ID, {"cgroup.procs": "7\n", "inner/cgroup.procs": "8\n9\n"})
    cgroup = cgroup_of(kernel, 7, ID)
    assert cgroup is not None
    layer = processes_layer(kernel, cgroup)
    assert layer.name == "3 processes"
    first, second = layer.below  # the third has ended meanwhile
    assert values(first)["command"] == ("sh -c true", "")
    assert values(first)["NSpid"] == ("7 1", "1 inside")
    assert (second.name, values(second)["NSpid"]) == ("8", ("8 2", "2 inside"))


def test_bundle_and_runtime_are_found_through_containerds_shim(kernel: Kernel, tmp_path: Path) -> None:
    bundle = tmp_path / "run" / "moby" / ID
    config = {"ociVersion": "1.0.2", "root": {"path": "/merged"}, "linux": {"namespaces": [{"type": "pid"}]}}
    options = {"binary_name": "runc", "root": "/run/docker/runtime-runc"}
    write(bundle, {"config.json": json.dumps(config), "options.json": json.dumps(options)})
    words = f"/usr/bin/containerd-shim-runc-v2\0-namespace\0moby\0-id\0{ID}\0"
    write(kernel.proc, {"7/status": "PPid:\t5\n", "5/cmdline": words, "5/status": "PPid:\t1\nVmRSS:\t10 kB\n"})
    link(kernel.proc, {"5/cwd": str(bundle)})
    assert shim_of(kernel, 7) == 5
    assert values(shim_layer(kernel, 5))["PPid"] == ("1", "1: it outlives who started it")
    found, runtime = layers_of_shim(kernel, 5, ID, 7)
    assert values(found)["path"] == ("/merged", "where its file system is mounted")
    assert found.note == "asks for namespaces of its own: pid"
    assert runtime.command == f"runc --root /run/docker/runtime-runc/moby state {ID}"


def test_a_process_that_has_no_shim_is_no_error(kernel: Kernel) -> None:
    write(kernel.proc, {"7/status": "PPid:\t1\n", "8/status": "PPid:\t0\n"})
    assert shim_of(kernel, 7) == shim_of(kernel, 8) == shim_of(kernel, 9) == 0
    assert layers_of_shim(kernel, 9, ID, 7) == ()


def test_conmon_knows_bundle_and_runtime_by_its_arguments(kernel: Kernel, tmp_path: Path) -> None:
    write(tmp_path / "b", {"config.json": json.dumps({"ociVersion": "1.0.2"})})
    words = ["/usr/bin/conmon", "-c", ID, "-r", "/usr/bin/crun", "-b", str(tmp_path / "b")]
    words += ["--runtime-arg", "--root", "--runtime-arg", "/state"]
    write(kernel.proc, {"5/cmdline": "\0".join(words) + "\0"})
    bundle, runtime = layers_of_shim(kernel, 5, ID, 7)
    assert (bundle.name, runtime.name) == (str(tmp_path / "b"), "crun")
    assert runtime.command == f"/usr/bin/crun --root /state state {ID}"
