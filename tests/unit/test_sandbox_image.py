"""The program of sandboxes: right machine code, and it runs where it can be tried."""

import io
import json
import platform
import subprocess
import tarfile
from pathlib import Path

import pytest

from agent.drivers.sandbox_image import PROGRAM, sandbox_image_tar, waiting_program
from manifests.errors import NotFoundError


@pytest.mark.skipif(platform.machine() != "x86_64", reason="runs on x86_64")
def test_the_program_waits_without_using_time(tmp_path: Path) -> None:
    program = tmp_path / "wait"
    program.write_bytes(waiting_program("amd64"))
    program.chmod(0o755)
    process = subprocess.Popen([program])
    try:
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(0.2)
        fields = Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()
        assert (fields[0], fields[11], fields[12]) == ("S", "0", "0")  # asleep, and no tick of time used
    finally:
        process.kill()
        process.wait()


def test_the_code_for_arm_is_what_an_assembler_makes_of_it() -> None:
    """As `llvm-mc --disassemble -triple=aarch64` shows it: mov x0..x4, #0; mov x8, #73; svc #0; b #-28."""
    program = waiting_program("arm64")
    assert int.from_bytes(program[18:20], "little") == 183  # EM_AARCH64
    assert program[120:].hex() == "000080d2010080d2020080d2030080d2040080d2280980d2010000d4f9ffff17"


def test_the_image_is_the_same_each_time_and_starts_the_program() -> None:
    archive = sandbox_image_tar("wherry/sandbox:1", "arm64")
    assert archive == sandbox_image_tar("wherry/sandbox:1", "arm64")
    with tarfile.open(fileobj=io.BytesIO(archive)) as files:
        manifest = json.loads(files.extractfile("manifest.json").read())[0]  # type: ignore[union-attr]  # it is a file
        config = json.loads(files.extractfile(manifest["Config"]).read())  # type: ignore[union-attr]  # it is a file
    assert manifest["RepoTags"] == ["wherry/sandbox:1"]
    assert (config["architecture"], config["config"]["Entrypoint"]) == ("arm64", [PROGRAM])


def test_a_machine_without_a_program_is_named() -> None:
    with pytest.raises(NotFoundError, match="riscv64"):
        waiting_program("riscv64")
