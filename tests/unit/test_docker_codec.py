"""Tests of agent.drivers.docker_codec and agent.drivers.docker_words."""

import struct
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.driver import (
    SANDBOX_IMAGE,
    ContainerSpec,
    ContainerState,
    Limits,
    LogChunk,
    Mount,
    PublishedPort,
    StartError,
)
from agent.drivers.docker_codec import Frames, to_container, to_create_body, to_seconds, with_tag
from agent.drivers.docker_words import start_failure
from manifests.errors import DriverError, InvalidError, UnavailableError

LIMITS = Limits(cpu_m=250, memory_bytes=64 << 20, pids=100)


def spec(**changes: Any) -> ContainerSpec:
    fields: dict[str, Any] = {"name": "web", "image": "web:1", "command": (), "args": (), "env": {}, "labels": {}}
    return ContainerSpec(**(fields | {"limits": LIMITS} | changes))


def inspected(status: str, **state: Any) -> dict[str, Any]:
    """Return what dockerd 20.10 tells of a container, as far as it is read."""
    zero = "0001-01-01T00:00:00Z"
    plain = {"Status": status, "Pid": 0, "ExitCode": 0, "OOMKilled": False, "Error": ""}
    return {
        "Id": "f" * 64,
        "Name": "/web",
        "State": {**plain, "StartedAt": zero, "FinishedAt": zero, **state},
        "Config": {"Image": "web:1", "Labels": {"a": "b"}},
        "NetworkSettings": {"Networks": {"bridge": {"IPAddress": "172.30.0.2"}}},
    }


def test_limits_have_no_way_around_by_swap() -> None:
    host = to_create_body(spec())["HostConfig"]
    assert (host["CpuPeriod"], host["CpuQuota"], host["PidsLimit"]) == (100_000, 25_000, 100)
    assert host["Memory"] == host["MemorySwap"] == 64 << 20


def test_a_tiny_share_of_a_cpu_is_the_least_that_the_kernel_takes() -> None:
    tiny = Limits(cpu_m=1, memory_bytes=64 << 20, pids=1)
    assert to_create_body(spec(limits=tiny))["HostConfig"]["CpuQuota"] == 1_000


@pytest.mark.parametrize("limits", [Limits(0, 1, 1), Limits(1, 0, 1), Limits(1, 1, 0), Limits(1, 1, -1)])
def test_no_limit_is_ever_unlimited(limits: Limits) -> None:
    with pytest.raises(InvalidError):
        to_create_body(spec(limits=limits))


def test_the_image_s_own_command_stays_unless_replaced() -> None:
    assert not {"Entrypoint", "Cmd", "WorkingDir", "User", "Hostname"} & set(to_create_body(spec()))
    body = to_create_body(spec(command=("sh", "-c"), args=("exit 1",)))
    assert (body["Entrypoint"], body["Cmd"]) == (["sh", "-c"], ["exit 1"])


def test_one_container_port_may_be_published_on_several_addresses() -> None:
    ports = (PublishedPort(80, 8080, "10.0.0.1"), PublishedPort(80, 8081, ""), PublishedPort(53, 53, "", "udp"))
    body = to_create_body(spec(ports=ports))
    on_http = [{"HostIp": "10.0.0.1", "HostPort": "8080"}, {"HostIp": "", "HostPort": "8081"}]
    assert body["HostConfig"]["PortBindings"] == {"80/tcp": on_http, "53/udp": [{"HostIp": "", "HostPort": "53"}]}
    assert set(body["ExposedPorts"]) == {"80/tcp", "53/udp"}


def test_host_networking_publishes_nothing() -> None:
    body = to_create_body(spec(host_network=True, ports=(PublishedPort(80, 8080, ""),)))
    assert body["HostConfig"]["NetworkMode"] == "host"
    assert "ExposedPorts" not in body
    assert "PortBindings" not in body["HostConfig"]


def test_a_runtime_is_asked_for_by_its_name() -> None:
    assert to_create_body(spec(runtime="runsc"))["HostConfig"]["Runtime"] == "runsc"
    assert "Runtime" not in to_create_body(spec())["HostConfig"]
    assert "Runtime" not in to_create_body(spec(runtime="runsc", image=SANDBOX_IMAGE))["HostConfig"]


def test_a_container_in_anothers_network_has_no_ports_and_no_hostname_of_its_own() -> None:
    joined = spec(network_of="f0", hostname="web", ports=(PublishedPort(80, 8080, ""),))
    body = to_create_body(joined)
    assert body["HostConfig"]["NetworkMode"] == "container:f0"
    assert not {"ExposedPorts", "Hostname"} & set(body)
    assert "PortBindings" not in body["HostConfig"]


@pytest.mark.parametrize(("mode", "of"), [("container:f0", "f0"), ("bridge", ""), ("host", "")])
def test_whose_network_a_container_lives_in_is_read_back(mode: str, of: str) -> None:
    assert to_container(inspected("created") | {"HostConfig": {"NetworkMode": mode}}).network_of == of


def test_mounts_are_read_only_and_never_make_their_source() -> None:
    body = to_create_body(spec(mounts=(Mount("/a/b", "/etc/b"),)))
    wanted = {"Type": "bind", "Source": "/a/b", "Target": "/etc/b", "ReadOnly": True}
    assert body["HostConfig"]["Mounts"] == [wanted]
    assert "Mounts" not in to_create_body(spec())["HostConfig"]


def test_a_network_that_is_gone_is_not_the_containers_fault() -> None:
    assert isinstance(start_failure("web", "cannot join network of a non running container: f0"), UnavailableError)


def test_a_container_that_never_ran_has_no_exit_code() -> None:
    found = to_container(inspected("created", ExitCode=127, Error="no such file"))
    assert (found.state, found.exit_code, found.error) == (ContainerState.CREATED, None, "no such file")
    assert (found.started_s, found.finished_s) == (0.0, 0.0)
    assert to_container(inspected("removing")).state is ContainerState.CREATED


@pytest.mark.parametrize("status", ["running", "paused", "restarting"])
def test_a_running_container_has_a_process_and_an_address(status: str) -> None:
    times = {"StartedAt": "2026-01-02T03:04:05.123456789Z", "FinishedAt": "2026-01-01T00:00:00Z"}
    found = to_container(inspected(status, Pid=42, **times))
    assert (found.state, found.pid, found.exit_code) == (ContainerState.RUNNING, 42, None)
    assert (found.name, found.labels, found.address) == ("web", {"a": "b"}, "172.30.0.2")
    assert found.started_s == pytest.approx(1767323045.123456789, abs=1e-6)
    assert found.finished_s == 0.0  # that was the run before


@pytest.mark.parametrize("status", ["exited", "dead", "removing"])
def test_an_ended_container_has_an_exit_code(status: str) -> None:
    times = {"StartedAt": "2026-01-02T03:04:05Z", "FinishedAt": "2026-01-02T03:04:06.5Z"}
    found = to_container(inspected(status, ExitCode=137, OOMKilled=True, **times))
    assert (found.state, found.exit_code, found.oom_killed) == (ContainerState.EXITED, 137, True)
    assert found.finished_s - found.started_s == 1.5


def test_a_very_short_run_does_not_end_before_it_starts() -> None:
    times = {"StartedAt": "2026-01-02T03:04:05.0007Z", "FinishedAt": "2026-01-02T03:04:05.0005Z"}
    found = to_container(inspected("exited", **times))
    assert found.finished_s == found.started_s


def test_a_container_without_labels_or_networks_is_read() -> None:
    bare = inspected("created") | {"Config": {"Image": "x", "Labels": None}, "NetworkSettings": {"Networks": None}}
    found = to_container(bare)
    assert (found.labels, found.address) == ({}, "")


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("1970-01-01T00:00:10Z", 10.0),
        ("1970-01-01T02:00:00.5+02:00", 0.5),
        ("1970-01-01T00:00:00.000000001Z", 1e-9),
        ("0001-01-01T00:00:00Z", 0.0),
        ("", 0.0),
    ],
)
def test_times_are_seconds_since_the_epoch(text: str, seconds: float) -> None:
    assert to_seconds(text) == seconds


def test_only_a_reference_without_tag_gets_one() -> None:
    given = ["web", "a.b:5000/web", "a.b:5000/web:2", "web@sha256:aa", "web:1@sha256:aa"]
    wanted = ["web:latest", "a.b:5000/web:latest", "a.b:5000/web:2", "web@sha256:aa", "web:1@sha256:aa"]
    assert [with_tag(image) for image in given] == wanted


frames = st.lists(st.tuples(st.sampled_from([1, 2]), st.binary(max_size=40)), max_size=12)


@given(frames, st.lists(st.integers(1, 30), min_size=1, max_size=40))
def test_frames_come_apart_wherever_the_chunks_are_cut(sent: list[tuple[int, bytes]], cuts: list[int]) -> None:
    wire = b"".join(struct.pack(">BxxxI", kind, len(data)) + data for kind, data in sent)
    demux, got, at = Frames(), list[LogChunk](), 0
    while at < len(wire):
        size = cuts[at % len(cuts)]
        got += demux.feed(wire[at : at + size])
        at += size
    for kind, name in ((1, "stdout"), (2, "stderr")):
        wanted = b"".join(data for sent_kind, data in sent if sent_kind == kind)
        assert b"".join(chunk.data for chunk in got if chunk.stream == name) == wanted
    assert all(chunk.data for chunk in got)


AT = b"2026-11-24T22:15:00.123456789Z "


@pytest.mark.parametrize("size", [1, 7, 30, 31, 32, 1000])
def test_of_a_long_line_in_several_frames_only_the_first_keeps_its_time(size: int) -> None:
    sent = [(1, AT + b"a long "), (2, AT + b"another\n"), (1, AT + b"line\n"), (1, AT + b"next\n")]
    wire = b"".join(struct.pack(">BxxxI", kind, len(data)) + data for kind, data in sent)
    demux = Frames(is_timed=True)
    got = [chunk for at in range(0, len(wire), size) for chunk in demux.feed(wire[at : at + size])]
    text = b"".join(chunk.data for chunk in got if chunk.stream == "stdout")
    assert text == AT + b"a long line\n" + AT + b"next\n"


def test_a_frame_s_payload_is_not_held_back() -> None:
    assert Frames().feed(struct.pack(">BxxxI", 1, 1 << 31) + b"part") == [LogChunk("stdout", b"part")]


def test_what_is_no_frame_is_an_error() -> None:
    with pytest.raises(DriverError, match="unknown kind"):
        Frames().feed(b"plain text of a terminal")


BIND = "driver failed programming external connectivity on endpoint web (ab12): "
OCI = "failed to create shim task: OCI runtime create failed: runc create failed: unable to start container process: "


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (BIND + "Bind for 10.0.0.1:8080 failed: port is already allocated", "port 8080 of 10.0.0.1 is taken"),
        (BIND + "Bind for :::8080 failed: port is already allocated", "port 8080 of :: is taken"),
        (
            BIND + "Error starting userland proxy: listen tcp4 0.0.0.0:80: bind: address already in use",
            "port 80 of 0.0.0.0 is taken",
        ),
        (
            BIND + "Error starting userland proxy: listen tcp6 [fe::9]:80: bind: cannot assign requested address",
            "port 80 can't be published on [fe::9]",
        ),
        (OCI + 'exec: "nope": executable file not found in $PATH: unknown', "no executable nope"),
        (OCI + 'exec: "/nope": stat /nope: no such file or directory: unknown', "no executable /nope"),
        (OCI + 'exec: "/etc/passwd": permission denied: unknown', "/etc/passwd is not executable"),
        (OCI + "exec /run.sh: no such file or directory", "/run.sh can't run in this image"),
        (OCI + "exec /run.sh: exec format error", "/run.sh is not a program for this machine"),
        (OCI + 'chdir to cwd ("/x") set in config.json failed: permission denied', "directory /x can't be entered"),
        ("unable to find user ghost: no matching entries in passwd file", "the image has no user ghost"),
        ("something new", "cannot start container web"),
    ],
)
def test_a_failed_start_says_what_is_wrong_in_words_and_in_docker_s_own(text: str, says: str) -> None:
    error = start_failure("web", text)
    assert isinstance(error, StartError)
    assert says in error.what
    assert error.why == text
    assert error.fix


@pytest.mark.parametrize("text", ["transport is closing: unavailable", "ttrpc: closed: unknown", "context canceled"])
def test_a_start_that_broke_inside_docker_is_not_the_container_s_fault(text: str) -> None:
    assert isinstance(start_failure("web", text), UnavailableError)
