"""How every driver keeps a container apart, seen from inside the real container. What a driver can't do it refuses."""

from pathlib import Path

import pytest

from agent.cgroups import has_io_weight, is_v2
from agent.driver import Driver, Isolation, Limits, Mount, Tmpfs
from manifests.errors import InvalidError
from manifests.permissions import BASE_CAPABILITIES
from tests.conformance.driver_lab import MIB, cgroup_file, look, process_status, run, shell, until

pytestmark = pytest.mark.docker
FOREVER = "trap 'exit 0' TERM; while :; do sleep 0.1; done"
CHOWN, NET_BIND_SERVICE, NET_ADMIN, NET_RAW = 0, 10, 12, 13  # numbers of linux/capability.h
NO_WORD = "the CRI has no word for it, and the driver refuses it"


async def bounding(driver: Driver, isolation: Isolation) -> set[int]:
    """Return the numbers of what a process of root may do there."""
    container = await run(driver, shell(FOREVER, isolation=isolation))
    fields = process_status((await look(driver, container)).pid)
    assert fields["CapEff"] == fields["CapBnd"]
    return {number for number in range(64) if int(fields["CapEff"], 16) & 1 << number}


async def told(driver: Driver, script: str, isolation: Isolation, **changes: object) -> str:
    """Return what a command prints in a container that is kept apart in that way."""
    container = await run(driver, shell(FOREVER, isolation=isolation, **changes))
    done = await driver.execute(container, ["sh", "-c", script], timeout_s=10)
    return done.output.decode()


def limit_rows(pid: int) -> dict[str, list[str]]:
    lines = Path(f"/proc/{pid}/limits").read_text().splitlines()
    return {line[:25].strip(): line[25:].split() for line in lines}


async def is_cri(driver: Driver) -> bool:
    return (await driver.info()).name == "cri"


async def refuses(driver: Driver, isolation: Isolation, field: str) -> None:
    with pytest.raises(InvalidError, match=field):
        await driver.create(shell(FOREVER, isolation=isolation))


async def test_capabilities_are_exactly_those_that_are_given(driver: Driver) -> None:
    assert await bounding(driver, Isolation(capabilities=("NET_BIND_SERVICE",))) == {NET_BIND_SERVICE}
    assert await bounding(driver, Isolation(capabilities=())) == set()


async def test_a_capability_may_come_on_top_of_the_usual_ones(driver: Driver) -> None:
    found = await bounding(driver, Isolation(capabilities=(*BASE_CAPABILITIES, "NET_ADMIN")))
    assert len(found) == len(BASE_CAPABILITIES) + 1
    assert {CHOWN, NET_ADMIN} <= found
    assert NET_RAW not in found


async def test_ulimits_hold_for_the_process(driver: Driver) -> None:
    isolation = Isolation(ulimits={"nofile": (256, 512), "core": (0, 0)})
    if await is_cri(driver):
        await refuses(driver, isolation, "ulimits")
        pytest.skip(NO_WORD)
    container = await run(driver, shell(FOREVER, isolation=isolation))
    rows = limit_rows((await look(driver, container)).pid)
    assert rows["Max open files"][:2] == ["256", "512"]
    assert rows["Max core file size"][:2] == ["0", "0"]


async def test_a_tmpfs_has_its_size_and_can_be_written_under_a_read_only_root(driver: Driver) -> None:
    isolation = Isolation(tmpfs=(Tmpfs("/scratch", 3 * MIB),))
    if await is_cri(driver):
        await refuses(driver, isolation, "tmpfs")
        pytest.skip(NO_WORD)
    mount = await told(driver, "grep ' /scratch ' /proc/mounts", isolation, read_only_root=True)
    source, _, kind, options, *_ = mount.split()
    assert (source, kind) == ("tmpfs", "tmpfs")
    assert {"size=3072k", "noexec", "nosuid", "nodev"} <= set(options.split(","))
    fill = "echo hi >/scratch/a && cat /scratch/a && dd if=/dev/zero of=/scratch/b bs=1M count=4 2>&1"
    said = await told(driver, fill, isolation, read_only_root=True)
    assert said.startswith("hi\n")
    assert "No space left" in said


async def test_any_user_may_write_to_a_tmpfs(driver: Driver) -> None:
    if await is_cri(driver):
        pytest.skip(NO_WORD)
    isolation = Isolation(tmpfs=(Tmpfs("/scratch", MIB),))
    assert await told(driver, "touch /scratch/a && ls /scratch", isolation, user="1234:1234") == "a\n"


async def test_shared_memory_has_its_size(driver: Driver) -> None:
    isolation = Isolation(shm_bytes=5 * MIB)
    if await is_cri(driver):
        await refuses(driver, isolation, "shmSize")
        pytest.skip(NO_WORD)
    assert "size=5120k" in await told(driver, "grep ' /dev/shm ' /proc/mounts", isolation)


async def test_sysctls_are_those_of_the_containers_network(driver: Driver) -> None:
    isolation = Isolation(sysctls={"net.ipv4.tcp_fin_timeout": "17", "net.ipv4.ip_local_port_range": "2000 3000"})
    script = "cat /proc/sys/net/ipv4/tcp_fin_timeout /proc/sys/net/ipv4/ip_local_port_range"
    assert (await told(driver, script, isolation, host_network=False)).split() == ["17", "2000", "3000"]


async def test_privileges_are_gained_only_where_that_is_allowed(driver: Driver) -> None:
    container = await run(driver, shell(FOREVER, isolation=Isolation(may_gain_privileges=True)))
    assert process_status((await look(driver, container)).pid)["NoNewPrivs"] == "0"


async def test_seccomp_is_left_out_only_where_that_is_asked(driver: Driver) -> None:
    for is_confined, mode in ((True, "2"), (False, "0")):
        container = await run(driver, shell(FOREVER, isolation=Isolation(is_confined=is_confined)))
        assert process_status((await look(driver, container)).pid)["Seccomp"] == mode


async def test_a_mount_can_be_written_only_where_it_may_be(driver: Driver, tmp_path: Path) -> None:
    kept, shown = tmp_path / "kept", tmp_path / "shown"
    for folder in (kept, shown):
        folder.mkdir()
        folder.chmod(0o777)
    mounts = (Mount(str(kept), "/kept", read_only=False), Mount(str(shown), "/shown"))
    script = "echo hi >/kept/a; touch /shown/b 2>&1"
    assert "Read-only" in await told(driver, script, Isolation(), mounts=mounts, user="1234:1234")
    assert (kept / "a").read_text() == "hi\n"
    assert (kept / "a").stat().st_uid == 1234
    assert not (shown / "b").exists()


async def test_a_command_inside_is_kept_apart_as_the_container_is(driver: Driver) -> None:
    """It has the container's user, capabilities and seccomp: else a health check would be a way out."""
    script = "id -u; id -g; grep -E '^(CapEff|CapBnd|NoNewPrivs|Seccomp):' /proc/self/status"
    said = await told(driver, script, Isolation(capabilities=("CHOWN",)), user="1234:4321")
    user, group, *fields = said.splitlines()
    assert (user, group) == ("1234", "4321")
    status = dict(field.split(":\t") for field in fields)
    assert int(status["CapEff"], 16) == 0
    assert int(status["CapBnd"], 16) == 1 << CHOWN
    assert (status["NoNewPrivs"], status["Seccomp"]) == ("1", "2")


async def test_weights_and_soft_memory_are_in_the_cgroup(driver: Driver) -> None:
    limits = Limits(500, 48 * MIB, 32, cpu_weight=200, memory_soft_bytes=24 * MIB)
    container = await run(driver, shell(FOREVER, limits=limits))
    pid = (await look(driver, container)).pid
    assert cgroup_file(pid, "cpu", "cpu.shares", "cpu.weight") == ("200" if is_v2() else "2048")
    await until(
        lambda: cgroup_file(pid, "memory", "memory.soft_limit_in_bytes", "memory.low") == str(24 * MIB), within_s=2
    )


async def test_a_weight_of_io_is_no_error_where_the_kernel_has_none(driver: Driver) -> None:
    limits = Limits(500, 48 * MIB, 32, io_weight=500)
    container = await run(driver, shell(FOREVER, limits=limits))
    pid = (await look(driver, container)).pid
    if not has_io_weight():
        pytest.skip("this kernel shares no disk by weight: it was left out")
    assert cgroup_file(pid, "blkio", "blkio.weight", "io.weight").split()[-1] in ("59", "500")
