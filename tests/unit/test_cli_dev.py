"""`wherry dev`: how it shares out the machine, what it starts, and how its family of processes ends."""

import os
import signal
import socket
import sys
import time
from argparse import Namespace
from collections.abc import Callable
from pathlib import Path

import pytest

from manifests.errors import ConflictError, UnavailableError, UsageError
from wherry.cli.dev import _engine, _locked
from wherry.cli.dev_plan import Plan, check_port, settle_store
from wherry.cli.machine import Capacity, Docker, parse_amounts, share, this_machine
from wherry.cli.processes import Family, end_processes, ending_of, processes_under

MACHINE = Capacity(2000, 8 * 2**30, 32768)
LOUD = "2026-01-01 00:00:00,000 WARNING agent/n1 node lost"


def plan(data_dir: Path, *, has_cgroupfs: bool = True) -> Plan:
    return Plan(data_dir, 3, 7400, "sqlite", "", (0, 0), "unix:///d.sock", has_cgroupfs, share(MACHINE, 3))


def until(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.02)


@pytest.mark.parametrize("nodes", [1, 2, 3, 7, 50])
def test_the_nodes_together_never_have_more_than_the_machine_less_its_system(nodes: int) -> None:
    part = share(MACHINE, nodes)
    assert part.cpu_m * nodes <= MACHINE.cpu_m * 0.9
    assert part.memory_bytes * nodes <= MACHINE.memory_bytes * 0.9
    assert part.pids * nodes <= MACHINE.pids
    assert part.cpu_m > 0


def test_too_many_nodes_for_the_machine_are_refused_with_the_way_out() -> None:
    with pytest.raises(UsageError, match="--node-cpu"):
        share(Capacity(1000, 512 * 2**20, 1000), 50)
    assert parse_amounts("2", "1Gi", share(MACHINE, 1))[:2] == (2000, 2**30)
    assert this_machine().cpu_m >= 1000


def test_each_node_has_an_address_and_a_cgroup_of_its_own(tmp_path: Path) -> None:
    commands = [plan(tmp_path).agent_command(name) for name in ("n1", "n2", "n3")]
    for flag in ("--publish-address", "--cgroup-parent", "--data-dir", "--name"):
        assert len({command[command.index(flag) + 1] for command in commands}) == 3
    assert "--cgroup-parent" not in plan(tmp_path, has_cgroupfs=False).agent_command("n1")


def test_a_folder_keeps_its_store(tmp_path: Path) -> None:
    assert settle_store(tmp_path, None, "") == ("sqlite", "")
    assert settle_store(tmp_path, "sqlite", "") == ("sqlite", "")
    with pytest.raises(UsageError, match="kept in sqlite"):
        settle_store(tmp_path, "etcd", "http://127.0.0.1:2379")


def test_a_taken_port_is_a_conflict_that_names_the_flag() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken, pytest.raises(ConflictError, match="--port"):
        check_port(taken.getsockname()[1])
    assert check_port(0) > 0


def test_a_second_dev_on_the_same_folder_is_refused(tmp_path: Path) -> None:
    with _locked(tmp_path), pytest.raises(ConflictError, match=str(os.getpid())), _locked(tmp_path):
        pass
    with _locked(tmp_path):
        pass


def test_without_a_dockerd_the_error_says_how_to_get_one(tmp_path: Path) -> None:
    with pytest.raises(UnavailableError, match="--docker"):
        Docker(f"unix://{tmp_path}/none.sock").cgroup_driver()


def test_what_ran_the_containers_of_a_folder_runs_them_again(tmp_path: Path) -> None:
    asked = Namespace(docker=f"unix://{tmp_path}/none.sock", driver=None)
    (tmp_path / "nodes/n1").mkdir(parents=True)
    for kept in ("docker", "oci"):
        (tmp_path / "nodes/n1/driver").write_text(f"{kept}\n")
        assert _engine(Namespace(**vars(asked)), tmp_path)[0] == kept
    assert _engine(Namespace(docker=asked.docker, driver="docker"), tmp_path)[0] == "docker"


def test_children_are_watched_and_their_warnings_relayed(tmp_path: Path) -> None:
    family = Family(tmp_path, dict(os.environ))
    lines = ["2026-01-01 00:00:00,000 INFO    agent/n1 fine", LOUD, "  a traceback", ""]
    child = family.start("n1", [sys.executable, "-c", f"print({os.linesep.join(lines)!r}); raise SystemExit(3)"])
    until(lambda: child.exit_code is not None)
    assert [c.name for c in family.newly_dead()] == ["n1"]
    assert family.newly_dead() == []
    assert ending_of(child) == "exited with 3"
    assert list(child.loud_lines())[:2] == [LOUD, "  a traceback"]
    child.close()


def test_a_child_that_ignores_the_request_is_killed(tmp_path: Path) -> None:
    family = Family(tmp_path, dict(os.environ))
    stubborn = (
        "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('up', flush=True); time.sleep(99)"
    )
    child = family.start("n1", [sys.executable, "-c", stubborn])
    until(lambda: "up" in child.log.read_text())
    family.stop(["n1"], timeout_s=0.2)
    until(lambda: child.exit_code is not None)
    assert ending_of(child) == "was killed by SIGKILL"
    child.close()


def test_processes_of_an_earlier_run_are_found_by_their_folder(tmp_path: Path) -> None:
    folder = tmp_path / "dev"
    family = Family(tmp_path / "logs", dict(os.environ))
    sleeper = [sys.executable, "-c", "import time; time.sleep(99)", "--data-dir"]
    inside = family.start("in", [*sleeper, str(folder / "nodes" / "n1")])
    outside = family.start("out", [*sleeper, str(tmp_path / "other" / "n1")])
    until(lambda: processes_under(folder) == [inside.pid])
    end_processes([inside.pid], timeout_s=5)
    assert inside.exit_code == -signal.SIGTERM
    assert outside.exit_code is None
    family.kill()
    until(lambda: outside.exit_code is not None)
    inside.close()
    outside.close()
