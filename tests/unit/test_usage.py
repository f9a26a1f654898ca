"""Readings of cgroups of version 1, 2 and both, and what they add up to."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.kernel import Kernel, cgroup_of
from agent.life import Life, first_seen, with_oom_kill, with_reading
from agent.usage import Reading, read_cpu_s, read_machine, read_usage

ID = "c0ffee"
STAT = "usage_usec 2500000\nuser_usec 2000000\nnr_periods 40\nnr_throttled 10\nthrottled_usec 700000\n"
PSI = "some avg10=12.50 avg60=3.00 avg300=1.00 total=900000\nfull avg10=0.00 avg60=0.00 avg300=0.00 total=5\n"


def write(root: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)


@pytest.fixture
def kernel(tmp_path: Path) -> Kernel:
    return Kernel(tmp_path / "proc", tmp_path / "cgroup")


def test_version_2_is_read(kernel: Kernel) -> None:
    write(kernel.proc, {"7/cgroup": f"0::/wherry/{ID}\n"})
    write(kernel.cgroups, {"cgroup.controllers": "cpu memory pids\n"})
    files = {"cpu.stat": STAT, "memory.current": "9000\n", "memory.stat": "anon 1\ninactive_file 2000\n"}
    files |= {"memory.peak": "9500\n", "memory.events": "low 0\noom 3\noom_kill 2\n", "pids.current": "4\n"}
    files |= {f"{name}.pressure": PSI for name in ("cpu", "memory", "io")}
    write(kernel.cgroups / "wherry" / ID, files)
    cgroup = cgroup_of(kernel, 7, ID)
    assert cgroup is not None
    assert (cgroup.version, cgroup.path) == (2, f"/wherry/{ID}")
    reading = read_usage(cgroup, 5.0)
    assert reading == Reading(5.0, 2_500_000, 7000, 9000, 9500, 4, 40, 10, 700_000, 2, ((0.125, 900_000),) * 3)


def write_v1(kernel: Kernel) -> None:
    lines = ["9:name=systemd:/", "4:memory:/wherry/" + ID, "3:pids:/wherry/" + ID, "2:cpu,cpuacct:/wherry/" + ID]
    write(kernel.proc, {"7/cgroup": "\n".join([*lines, f"0::/wherry/{ID}", ""])})
    own = f"wherry/{ID}"
    cpu = "nr_periods 40\nnr_throttled 10\nthrottled_time 700000000\n"
    memory = {"memory.usage_in_bytes": "9000\n", "memory.max_usage_in_bytes": "9500\n"}
    memory |= {"memory.stat": "inactive_file 1\ntotal_inactive_file 2000\n", "memory.oom_control": "oom_kill 2\n"}
    write(kernel.cgroups / "memory" / own, memory)
    write(kernel.cgroups / "pids" / own, {"pids.current": "4\n"})
    write(kernel.cgroups / "cpu" / own, {"cpu.stat": cpu})
    write(kernel.cgroups / "cpuacct" / own, {"cpuacct.usage": "2500000000\n"})


def test_version_1_is_read_without_pressure(kernel: Kernel) -> None:
    write_v1(kernel)
    cgroup = cgroup_of(kernel, 7, ID)
    assert cgroup is not None
    assert cgroup.version == 1
    assert read_usage(cgroup, 5.0) == Reading(5.0, 2_500_000, 7000, 9000, 9500, 4, 40, 10, 700_000, 2, (None,) * 3)


def test_beside_version_1_the_unified_tree_has_the_pressure(kernel: Kernel) -> None:
    write_v1(kernel)
    write(kernel.cgroups / "unified" / "wherry" / ID, {"cpu.pressure": PSI})
    cgroup = cgroup_of(kernel, 7, ID)
    assert cgroup is not None
    reading = read_usage(cgroup, 5.0)
    assert reading is not None
    assert reading.pressure == ((0.125, 900_000), None, None)


def test_another_process_of_that_number_is_not_taken_for_the_container(kernel: Kernel) -> None:
    write(kernel.proc, {"7/cgroup": "0::/user.slice\n"})
    assert cgroup_of(kernel, 7, ID) is None
    assert cgroup_of(kernel, 8, ID) is None


def test_a_cgroup_that_is_gone_has_no_reading(kernel: Kernel) -> None:
    write(kernel.proc, {"7/cgroup": f"0::/wherry/{ID}\n"})
    write(kernel.cgroups, {"cgroup.controllers": "cpu\n"})
    cgroup = cgroup_of(kernel, 7, ID)
    assert cgroup is not None
    assert read_usage(cgroup, 5.0) is None


def test_the_machine_is_read(kernel: Kernel) -> None:
    meminfo = "MemTotal:  1000 kB\nMemFree:  100 kB\nMemAvailable:  400 kB\n"
    write(kernel.proc, {"stat": "cpu  100 0 100 5000 5000 0 0 0 0 0\n", "meminfo": meminfo, "pressure/io": PSI})
    machine = read_machine(kernel, 1500.0)
    assert (machine.memory_bytes, machine.memory_total_bytes) == (600 * 1024, 1000 * 1024)
    assert (machine.cpu_m, machine.io_pressure_10s, machine.cpu_pressure_10s) == (1500.0, 0.125, None)
    assert read_cpu_s(kernel) == 2.0


def reading(at_s: float, cpu_us: int = 0, memory: int = 0, **more: int) -> Reading:
    extra = {
        "used_peak_bytes": None,
        "pids": 1,
        "periods": 0,
        "throttled_periods": 0,
        "throttled_us": 0,
        "oom_kills": 0,
    }
    return Reading(at_s, cpu_us, memory, memory, pressure=(None,) * 3, **(extra | more))  # type: ignore[arg-type]


def test_a_rate_needs_two_readings_that_are_apart() -> None:
    life = first_seen(reading(10.0, 0), attempt=1, wall_s=0.0)
    assert life.cpu_m is None
    life = with_reading(life, reading(10.5, 500_000), attempt=1)
    assert life.cpu_m is None
    life = with_reading(life, reading(12.0, 1_000_000), attempt=1)
    assert life.cpu_m == pytest.approx(1000 / 3)
    life = with_reading(life, reading(12.2, 1_200_000), attempt=1)  # on demand, right after: against the same base
    assert life.cpu_m == pytest.approx(700_000 / 1.7 / 1000)
    assert life.cpu_peak_m == life.cpu_m


def test_a_restart_adds_to_what_was_and_has_no_rate_of_its_own_yet() -> None:
    life = first_seen(reading(0.0, 100, periods=4, throttled_periods=2), attempt=1, wall_s=7.0)
    life = with_oom_kill(life)
    life = with_reading(life, reading(10.0, 50, periods=1, throttled_periods=1), attempt=2)
    assert life.cpu_m is None
    assert (life.totals.cpu_us, life.totals.periods, life.totals.throttled_periods) == (150, 5, 3)
    assert (life.totals.oom_kills, life.since_s, life.samples) == (1, 7.0, 2)


@st.composite
def lives(draw: st.DrawFn) -> list[tuple[int, Reading]]:
    """Draw readings as a kernel gives them: counters grow, and begin anew with each attempt."""
    steps = draw(st.lists(st.tuples(st.booleans(), st.floats(0, 60), st.integers(0, 10**8), st.integers(0, 2**40))))
    attempt, at_s, cpu_us, found = 1, 0.0, 0, []
    for is_new, passed_s, grown_us, memory in steps:
        attempt, at_s = attempt + is_new, at_s + passed_s
        cpu_us = grown_us if is_new else cpu_us + grown_us
        found.append((attempt, reading(at_s, cpu_us, memory)))
    return found


@given(lives())
def test_totals_never_shrink_and_peaks_are_the_most(found: list[tuple[int, Reading]]) -> None:
    life: Life | None = None
    total_us = 0
    for attempt, each in found:
        life = (
            first_seen(each, attempt=attempt, wall_s=0) if life is None else with_reading(life, each, attempt=attempt)
        )
        assert life.totals.cpu_us >= total_us
        total_us = life.totals.cpu_us
        assert life.cpu_m is None or life.cpu_peak_m is not None
        assert life.cpu_peak_m is None or life.cpu_m is None or life.cpu_peak_m >= life.cpu_m
    if life is not None:
        assert life.memory_peak_bytes == max(each.memory_bytes for _, each in found)
        assert life.samples == len(found)
        last = {attempt: each.cpu_us for attempt, each in found}
        assert life.totals.cpu_us == sum(last.values())


@pytest.mark.parametrize("text", ["", "\n", "cpu.stat", "nr_periods", "nr_periods \n", "nr_periods max\n", "\x00\xff"])
def test_odd_files_are_unknown_and_no_error(kernel: Kernel, text: str) -> None:
    write(kernel.proc, {"7/cgroup": f"0::/wherry/{ID}\n", "stat": text, "meminfo": text})
    write(kernel.cgroups, {"cgroup.controllers": "cpu\n"})
    names = ("cpu.stat", "memory.stat", "memory.events", "pids.current", "cpu.pressure", "memory.peak")
    write(kernel.cgroups / "wherry" / ID, {**dict.fromkeys(names, text), "memory.current": "5\n"})
    cgroup = cgroup_of(kernel, 7, ID)
    assert cgroup is not None
    found = read_usage(cgroup, 1.0)
    assert found is not None
    assert (found.memory_bytes, found.periods, found.pressure[0]) == (5, 0, None)
    assert read_machine(kernel, None).memory_total_bytes == 0
    assert read_cpu_s(kernel) is None
