"""`wherry cp` and `wherry port-forward` against a real server, agent and container manager."""

import asyncio
import os
import re
import signal
import stat
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import pytest
import pytest_asyncio

from tests.streams_world import World, oci_streams_world, service, streams_world

pytestmark = [pytest.mark.docker, pytest.mark.asyncio(loop_scope="module")]
ANSWER = "echo 'read line; echo you said $line' > /tmp/x; chmod +x /tmp/x; nc -ll -p 8080 -e sh /tmp/x"


@pytest_asyncio.fixture(scope="module", loop_scope="module", params=["docker", "oci"])
async def world(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[World]:
    folder = tmp_path_factory.mktemp("copies")
    async with streams_world(folder) if request.param == "docker" else oci_streams_world(folder) as world:
        yield world


@pytest_asyncio.fixture(loop_scope="module")
async def allocation(world: World) -> str:
    (allocation,) = await world.run(service("box", ANSWER, user="1000"))
    return allocation


async def test_a_folder_goes_in_and_comes_back_as_it_was(world: World, allocation: str, tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    await asyncio.to_thread(make, tree)
    sent = await world.wherry("cp", str(tree), f"{allocation}:/tmp")
    assert (sent.code, sent.err) == (0, "")
    listed = await world.wherry("exec", allocation, "--", "ls", "-ln", "/tmp/tree/bin/run")
    assert re.match(rb"-rwxr-x---\s+1 1000\s+1000", listed.out) or re.match(rb"-rwxr-x---\s+1 1000\s+0", listed.out)
    got = await world.wherry("cp", f"{allocation}:/tmp/tree", str(tmp_path / "back"))
    assert (got.code, got.err) == (0, "")
    back = tmp_path / "back"
    assert (back / "big").read_bytes() == (tree / "big").read_bytes()
    assert stat.S_IMODE((back / "bin/run").stat().st_mode) == 0o750
    assert os.readlink(back / "link") == "bin/run"
    await asyncio.to_thread((tmp_path / "into").mkdir)
    assert (await world.wherry("cp", f"{allocation}:/tmp/tree/big", str(tmp_path / "into"))).code == 0
    assert (tmp_path / "into/big").read_bytes() == (tree / "big").read_bytes()


def make(tree: Path) -> None:
    (tree / "bin").mkdir(parents=True)
    (tree / "bin/run").write_text("#!/bin/sh")
    (tree / "bin/run").chmod(0o750)
    (tree / "link").symlink_to("bin/run")
    (tree / "big").write_bytes(os.urandom(2 << 20))


async def test_links_lead_into_the_container_only(world: World, allocation: str, tmp_path: Path) -> None:
    await world.wherry("exec", allocation, "--", "ln", "-s", str(tmp_path), "/tmp/out")
    sent = await world.wherry("cp", __file__, f"{allocation}:/tmp/out/file")
    assert sent.code == 3
    assert await asyncio.to_thread(os.listdir, tmp_path) == []
    await world.wherry("exec", allocation, "--", "sh", "-c", "mkdir /tmp/l; ln -s /etc/passwd /tmp/l/p")
    got = await world.wherry("cp", f"{allocation}:/tmp/l", str(tmp_path))
    assert got.code == 0
    assert "leads elsewhere: /etc/passwd" in got.err
    assert await asyncio.to_thread(os.listdir, tmp_path / "l") == []


async def test_what_is_not_there_is_said(world: World, allocation: str, tmp_path: Path) -> None:
    missing = await world.wherry("cp", f"{allocation}:/none", str(tmp_path))
    assert missing.code == 3
    assert "no such file or folder in the container" in missing.err
    here = await world.wherry("cp", str(tmp_path / "none"), f"{allocation}:/tmp")
    assert here.code == 3
    nobody = await world.wherry("cp", "box-0-none:/etc/hosts", str(tmp_path / "x"))
    assert nobody.code == 3
    assert "there is no allocation box-0-none" in nobody.err
    assert not (tmp_path / "x").exists()
    both = await world.wherry("cp", "a", "b")
    assert both.code == 2


@asynccontextmanager
async def forwarding(
    world: World, allocation: str, ports: str
) -> AsyncIterator[tuple[int, asyncio.subprocess.Process]]:
    process = await world.start("port-forward", allocation, ports)
    assert process.stdout is not None
    try:
        line = (await asyncio.wait_for(process.stdout.readline(), 20)).decode()
        found = re.match(r"127\.0\.0\.1:(\d+) leads to", line)
        assert found, line
        yield int(found[1]), process
        process.send_signal(signal.SIGINT)
        assert await asyncio.wait_for(process.wait(), 20) == 0
    finally:
        with suppress(ProcessLookupError):
            process.kill()
        await process.wait()


async def ask(port: int, line: bytes) -> bytes:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(line)
    async with asyncio.timeout(20):
        answer = await reader.read()
    writer.close()
    return answer


async def test_a_port_inside_answers_here_to_several_at_once(world: World, allocation: str) -> None:
    async with forwarding(world, allocation, ":8080") as (port, _):
        answers = await asyncio.gather(*(ask(port, b"line %d\n" % n) for n in range(5)))
        assert answers == [b"you said line %d\n" % n for n in range(5)]


async def test_where_nothing_listens_it_says_so_and_goes_on(world: World, allocation: str) -> None:
    async with forwarding(world, allocation, "0:81") as (port, process):
        assert await ask(port, b"hello\n") == b""
        assert process.stderr is not None
        said = (await asyncio.wait_for(process.stderr.readline(), 20)).decode()
        assert "nothing listens on port 81 in the container" in said
        assert await ask(port, b"again\n") == b""


async def test_a_wrong_port_or_allocation_is_said_at_once(world: World, allocation: str) -> None:
    assert (await world.wherry("port-forward", allocation, "http")).code == 2
    unknown = await world.wherry("port-forward", "box-0-none", "8080:80")
    assert unknown.code == 3
    assert "box-0-none" in unknown.err
