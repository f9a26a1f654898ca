"""What the documentation tells people to type is typed here, against a real `wherry dev` with real containers."""

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from manifests.yaml_loader import load_text
from tests.dockerd import DockerdProcess

ROOT = Path(__file__).parents[2]
PAGES = sorted([ROOT / "README.md", *(ROOT / "docs").glob("*.md")])
LONG_RUNNING = ("dev", "server", "agent")
READY_S = 60


def blocks(language: str) -> list[tuple[str, str]]:
    """Return each fenced block of that language, and its page."""
    fence = re.compile(rf"^```{language}\n(.*?)^```", re.MULTILINE | re.DOTALL)
    return [(page.name, text) for page in PAGES for text in fence.findall(page.read_text())]


def commands() -> list[list[str]]:
    """Return what stands behind `$ wherry` in console blocks, in order."""
    lines = [line for _, text in blocks("console") for line in text.splitlines()]
    return [shlex.split(line.removeprefix("$ wherry ")) for line in lines if line.startswith("$ wherry ")]


def wherry(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "wherry", *arguments]


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[list[str], dict[str, str]]]:
    """Run `wherry dev --nodes 3` in the namespace of a dockerd of its own; yield how to run a command beside it."""
    folder = tmp_path_factory.mktemp("docs")
    daemon = DockerdProcess(folder)
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "WHERRY_DATA_DIR": str(folder / "dev")}
    inside = ["nsenter", f"--net=/run/netns/{daemon.netns}"]
    dev = None
    try:
        daemon.start()
        asked = wherry("dev", "--nodes", "3", "--data-dir", str(folder / "dev"), "--docker", f"unix://{daemon.socket}")
        with (folder / "dev.log").open("wb") as log:
            dev = subprocess.Popen([*inside, *asked], env=environment, cwd=ROOT, stdout=log, stderr=log)
        _await_ready(dev, folder / "dev.log")
        yield inside, environment
    finally:
        if dev is not None:
            dev.terminate()
            dev.wait(timeout=60)
        daemon.stop()


def _await_ready(dev: "subprocess.Popen[bytes]", log: Path) -> None:
    with subprocess.Popen(
        ["tail", "-F", "-n", "+1", str(log)], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    ) as tail:
        assert tail.stdout is not None
        try:
            for line in tail.stdout:
                if b"The cluster is ready" in line:
                    return
                assert dev.poll() is None, log.read_text()
        finally:
            tail.terminate()


@pytest.mark.docker
@pytest.mark.timeout(240)
def test_every_command_of_the_documentation_works(cluster: tuple[list[str], dict[str, str]]) -> None:
    inside, environment = cluster
    ran = 0
    for arguments in commands():
        if arguments[0] in LONG_RUNNING:
            continue
        done = subprocess.run(
            [*inside, *wherry(*arguments)], env=environment, cwd=ROOT, capture_output=True, timeout=120, check=False
        )
        said = done.stdout.decode() + done.stderr.decode()
        assert done.returncode == 0, f"$ wherry {' '.join(arguments)}\n{said}"
        ran += 1
    assert ran >= 10


@pytest.mark.parametrize("arguments", [c for c in commands() if c[0] in LONG_RUNNING], ids=" ".join)
def test_a_daemon_has_the_flags_that_the_documentation_gives_it(arguments: list[str]) -> None:
    told = subprocess.run(wherry(arguments[0], "--help"), capture_output=True, cwd=ROOT, check=True, timeout=30)
    for flag in (a for a in arguments if a.startswith("--")):
        assert flag in told.stdout.decode(), flag


@pytest.mark.parametrize(("page", "text"), blocks("yaml"))
def test_a_manifest_in_the_documentation_is_right(page: str, text: str) -> None:
    assert load_text(text, page)


def test_links_within_the_documentation_lead_somewhere() -> None:
    for page in [*PAGES, ROOT / "ARCHITECTURE.md"]:
        for target in re.findall(r"\]\(([^)#:]+)\)", page.read_text()):
            assert (page.parent / target).exists(), f"{page.name} links to {target}"


def test_files_that_the_map_names_exist() -> None:
    text = (ROOT / "ARCHITECTURE.md").read_text()
    for name in re.findall(
        r"`((?:agent|control_plane|manifests|scheduler|wherry|tests|docs|foundation)/[\w./-]+)`", text
    ):
        assert (ROOT / name).exists(), name
