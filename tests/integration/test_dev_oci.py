"""`wherry dev --driver oci`, as docs/drivers.md has it: without a container manager; nothing is left afterwards."""

import os
import re
import secrets
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.lab.cgroups import hierarchies

pytestmark = [pytest.mark.docker, pytest.mark.timeout(180)]
ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "drivers.md"


NOPE = """
apiVersion: wherry/v1
kind: Service
metadata: {name: nope}
spec: {image: "wherry/busybox:1", runtime: nope}
"""


class Dev:
    """One `wherry dev` in a network namespace of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.netns = f"wv-{secrets.token_hex(4)}"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        for words in (("add", self.netns), ("exec", self.netns, "ip", "link", "set", "lo", "up")):
            subprocess.run(["ip", "netns", *words], check=True, capture_output=True)
        command = self._command("dev", "--driver", "oci", "--nodes", "2", "--port", "0", "--data-dir", str(self.folder))
        self._process = subprocess.Popen(
            command, env=self._env(), cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
        )
        assert self._process.stdout is not None
        said = b""
        for line in self._process.stdout:  # ends with the process, which gives up after a minute
            said += line
            if b"Ctrl-C here" in line:
                return
        raise AssertionError(said.decode())

    def run(self, *words: str, stdin: str = "") -> str:
        done = subprocess.run(
            self._command(*words), env=self._env(), cwd=ROOT, input=stdin, capture_output=True, text=True, timeout=60
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def stop(self) -> None:
        if self._process is not None and self._process.poll() is None:
            self._process.terminate()
            self._process.communicate(timeout=60)

    def remove(self) -> None:
        self.stop()
        subprocess.run(["ip", "netns", "del", self.netns], check=False, capture_output=True)

    def links(self) -> list[str]:
        done = subprocess.run(["ip", "-n", self.netns, "-o", "link"], check=True, capture_output=True, text=True)
        return [line.split(":")[1].strip() for line in done.stdout.splitlines()]

    def _command(self, *words: str) -> list[str]:
        return ["nsenter", f"--net=/run/netns/{self.netns}", sys.executable, "-m", "wherry", *words]

    def _env(self) -> dict[str, str]:
        return {**os.environ, "PYTHONPATH": str(ROOT), "WHERRY_DATA_DIR": str(self.folder)}


@pytest.fixture
def dev(tmp_path: Path) -> Iterator[Dev]:
    made = Dev(tmp_path / "dev")
    try:
        made.start()
        yield made
    finally:
        made.remove()


def test_the_manifest_of_the_page_runs_from_the_hosts_files_and_nothing_is_left(dev: Dev) -> None:
    blocks = re.findall(r"^```yaml\n(.*?)^```", PAGE.read_text(), re.MULTILINE | re.DOTALL)
    (manifest,) = (block for block in blocks if "image: host:/" in block)
    dev.run("apply", "-f", "-", "--wait", stdin=manifest)
    dev.run("apply", "-f", "manifests/examples/web.yaml", "--wait")
    assert "hello from n" in dev.run("logs", "service/hello")
    assert "driver.version" in dev.run("describe", "node", "n1")
    dev.run("apply", "-f", "-", stdin=NOPE)
    assert "have no runtime nope" in dev.run("explain", "service/nope")
    assert any(name.startswith("wh-") for name in dev.links())
    dev.stop()
    assert not any(name.startswith("wh") for name in dev.links())
    assert list(dev.folder.glob("nodes/*/oci/containers/*")) == []
    left = [path for top in hierarchies() for path in top.glob("wherry-*/n[12]/*") if path.is_dir()]
    assert left == []
    assert str(dev.folder) not in subprocess.run(["ps", "-eo", "args"], capture_output=True, text=True).stdout
