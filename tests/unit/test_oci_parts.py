"""The pure parts of the oci driver: logs over rotation, commands, users, words, layouts; and how an agent chooses."""

import asyncio
import io
import json
import tarfile
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.driver import ContainerSpec, ImageError, Limits
from agent.drivers import choice
from agent.drivers.choice import Offer, choose
from agent.drivers.docker import DockerDriver
from agent.drivers.oci_bundle import Around, User, bundle_config, command_of, user_of
from agent.drivers.oci_images import Image
from agent.drivers.oci_inotify import Inotify
from agent.drivers.oci_layout import TarFiles, describe_oci
from agent.drivers.oci_logs import FILES, LogReader, files_of, read_log, rotate
from agent.drivers.oci_words import start_failure
from agent.folder import LocalFolder
from agent.options import AgentOptions
from manifests.errors import InvalidError, UnavailableError

SPEC = ContainerSpec("web", "dir:/x", (), (), {}, {"a": "b"}, Limits(250, 1 << 20, 9))
AROUND = Around(Path("/root"), User(0, 0, (), "/root"), "web-0", "/wherry/1", "")


def entry(number: int, text: str, *, kind: str = "F", stream: str = "stdout") -> str:
    return f"2026-11-24T22:15:00.{number:09d}+00:00 {stream} {kind} {text}\n"


async def collected(log: Path, *, tail: int | None = None, since: str = "", timed: bool = False) -> str:
    ended = asyncio.Event()
    ended.set()
    inotify = Inotify()
    try:
        reading = read_log(log, follow=False, tail=tail, timed=timed, since=since, inotify=inotify, has_ended=ended)
        return b"".join([chunk.data async for chunk in reading]).decode()
    finally:
        inotify.close()


def test_a_line_in_parts_is_one_line_and_streams_are_apart() -> None:
    entries = [entry(1, "lo", kind="P"), entry(2, "E", stream="stderr"), entry(3, "ng"), entry(4, "x")]
    chunks = LogReader(timed=True, since="").read(line.rstrip("\n").encode() for line in entries)
    assert [(c.stream, c.data.decode()) for c in chunks] == [
        ("stdout", "2026-11-24T22:15:00.000000001Z lo"),
        ("stderr", "2026-11-24T22:15:00.000000002Z E\n"),
        ("stdout", "ng\n2026-11-24T22:15:00.000000004Z x\n"),
    ]


@given(
    st.lists(st.integers(0, 3), min_size=1, max_size=30),
    st.integers(0, 12),
    st.lists(st.integers(0, 30), max_size=2).map(sorted),
)
def test_a_tail_and_a_time_mean_the_same_lines_however_files_were_rotated_and_times_repeat(
    tmp_path_factory: pytest.TempPathFactory, steps: list[int], tail: int, cuts: list[int]
) -> None:
    now, lines = 0, []
    for number, step in enumerate(steps):
        now += 100 * step  # 0: at the same time as the line before
        lines.append(entry(now, f"line {number}"))
    log = tmp_path_factory.mktemp("log") / "log"
    parts = [lines[a:b] for a, b in zip([0, *cuts], [*cuts, len(lines)], strict=True)]
    for age, part in enumerate(reversed(parts)):
        (log if age == 0 else log.with_name(f"log.{age}")).write_text("".join(part))

    async def check() -> None:
        whole = (await collected(log, timed=True)).splitlines()
        assert [line.split(" ", 1)[1] for line in whole] == [f"line {n}" for n in range(len(lines))]
        last = (await collected(log, tail=tail, timed=True)).splitlines()
        assert last == whole[len(whole) - min(tail, len(whole)) :]
        for at in range(0, len(whole), 3):
            rest = (await collected(log, since=whole[at].split(" ")[0], timed=True)).splitlines()
            assert rest == whole[at:]

    asyncio.run(check())


async def test_a_follower_reads_on_over_rotations_and_loses_nothing(tmp_path: Path) -> None:
    log, ended, inotify = tmp_path / "log", asyncio.Event(), Inotify()
    log.write_text(entry(0, "0"))
    reading = read_log(log, follow=True, tail=None, timed=False, since="", inotify=inotify, has_ended=ended)
    got = [(await anext(reading)).data]
    for number in range(1, 20):
        with log.open("a") as file:
            file.write(entry(number, str(number)))
        if number % 5 == 0:
            log.rename(tmp_path / "log.1")
            log.touch()
        got.append((await asyncio.wait_for(anext(reading), 5)).data)
    ended.set()
    assert [chunk async for chunk in reading] == []
    inotify.close()
    assert b"".join(got).split() == [str(number).encode() for number in range(20)]


def test_a_full_log_is_moved_aside_and_the_oldest_goes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("agent.drivers.oci_logs.FILE_BYTES", 10)
    log = tmp_path / "log"
    for text in ("a" * 20, "b" * 20, "c" * 20, "d" * 20):
        log.write_text(text)
        rotate(log)
    log.write_text("small")
    rotate(log)
    assert [file.read_text()[0] for file in files_of(log)] == ["c", "d", "s"]
    assert len(files_of(log)) == FILES


def test_what_is_run_is_put_together_as_docker_does() -> None:
    image = Image((), entrypoint=("/in",), command=("a", "b"))
    assert command_of(SPEC, image) == ("/in", "a", "b")
    assert command_of(replace(SPEC, args=("c",)), image) == ("/in", "c")
    assert command_of(replace(SPEC, command=("/x",)), image) == ("/x",)
    with pytest.raises(ImageError, match="says nothing of what to run"):
        command_of(SPEC, Image(()))


def test_a_bundle_lets_only_root_keep_capabilities_and_hides_the_kernels_files() -> None:
    image = Image((), command=("x",), env=("A=1", "B=2"))
    config = bundle_config(replace(SPEC, env={"B": "3"}), image, AROUND)
    assert {"A=1", "B=3", "HOME=/root"} <= set(config["process"]["env"])
    assert "CAP_NET_RAW" not in config["process"]["capabilities"]["bounding"]
    assert config["process"]["noNewPrivileges"]
    assert config["process"]["oomScoreAdj"] == 0  # whatever the agent's is, which is spared
    assert "/proc/kcore" in config["linux"]["maskedPaths"]
    assert "mount" in config["linux"]["seccomp"]["syscalls"][0]["names"]
    nobody = replace(AROUND, user=User(65534, 65534, (), "/"))
    assert bundle_config(SPEC, image, nobody)["process"]["capabilities"]["effective"] == []


def test_the_network_is_the_hosts_its_own_or_anothers() -> None:
    image = Image((), command=("x",))

    def namespaces(network: str | None) -> list[dict[str, str]]:
        config = bundle_config(SPEC, image, replace(AROUND, network=network))
        return [space for space in config["linux"]["namespaces"] if space["type"] == "network"]

    assert namespaces(None) == []
    assert namespaces("") == [{"type": "network"}]
    assert namespaces("/proc/7/ns/net") == [{"type": "network", "path": "/proc/7/ns/net"}]


@pytest.mark.parametrize("text", ["nobody", "1:nogroup", "-1", "root:x"])
def test_who_is_not_in_the_image_is_refused(text: str) -> None:
    with pytest.raises(InvalidError, match="the image has no"):
        user_of(text, "root:x:0:0::/root:/bin/sh", "root:x:0:")


@pytest.mark.parametrize(
    "text",
    [
        'exec: "nope": executable file not found in $PATH: unknown',
        "executable file `nope` not found in $PATH: No such file or directory",
        'error finding executable "nope" in PATH',
    ],
)
def test_runtimes_that_miss_a_program_are_told_alike(text: str) -> None:
    assert "the image has no executable nope" in str(start_failure("web", text))


def layout(**manifests: str) -> bytes:
    """Return a tar of an OCI layout whose index has these digests by tag."""
    buffer = io.BytesIO()
    index = {
        "manifests": [
            {"digest": digest, "annotations": {"org.opencontainers.image.ref.name": tag}}
            for tag, digest in manifests.items()
        ]
    }
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        data = json.dumps(index).encode()
        member = tarfile.TarInfo("./index.json")
        member.size = len(data)
        archive.addfile(member, io.BytesIO(data))
    return buffer.getvalue()


def test_an_image_that_is_not_named_clearly_is_refused_with_what_there_is() -> None:
    with tarfile.open(fileobj=io.BytesIO(layout(one="sha256:" + "0" * 64, two="sha256:" + "1" * 64))) as archive:
        with pytest.raises(ImageError, match="one, two"):
            describe_oci(TarFiles(archive), "")
        with pytest.raises(ImageError, match="no image three"):
            describe_oci(TarFiles(archive), "three")


def test_a_digest_that_is_a_path_is_refused() -> None:
    with (
        tarfile.open(fileobj=io.BytesIO(layout(one="sha256:../../etc/passwd"))) as archive,
        pytest.raises(ValueError, match="no digest"),
    ):
        describe_oci(TarFiles(archive), "one")


def offers(**missing: str) -> tuple[Offer, ...]:
    def offer(name: str, why: str) -> Offer:
        return Offer(name, lambda _: why, lambda options: DockerDriver(options.docker_socket))

    return tuple(offer(name, why) for name, why in missing.items())


def test_the_first_driver_that_is_there_is_taken_and_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    options, folder = AgentOptions(servers=(), name="n1", data_dir=tmp_path), LocalFolder(tmp_path)
    monkeypatch.setattr(choice, "OFFERS", offers(docker="nothing answers", oci=""))
    chosen = choose(options, folder)
    assert (chosen.name, chosen.available) == ("oci", ("oci",))
    monkeypatch.setattr(choice, "OFFERS", offers(docker="", oci=""))
    assert choose(options, folder).name == "oci"  # dockerd was installed since: what runs here runs on
    assert choose(options, folder).available == ("docker", "oci")
    assert choose(replace(options, driver="docker"), folder).name == "docker"
    assert choose(options, folder).name == "docker"


def test_an_agent_of_the_time_before_there_was_a_choice_stays_with_docker(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "state.json").write_text("{}")
    monkeypatch.setattr(choice, "OFFERS", offers(docker="it restarts", oci=""))
    options = AgentOptions(servers=(), name="n1", data_dir=tmp_path)
    assert choose(options, LocalFolder(tmp_path)).name == "docker"


def test_a_node_without_anything_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(choice, "OFFERS", offers(docker="nothing answers", oci="there is no conmon"))
    options = AgentOptions(servers=(), name="n1", data_dir=tmp_path)
    with pytest.raises(UnavailableError, match="apt install crun conmon"):
        choose(options, LocalFolder(tmp_path))
