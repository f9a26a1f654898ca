"""The packages' arrows point one way: walks every import, and fails on one that isn't drawn here."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGES = ("agent", "control_plane", "foundation", "manifests", "scheduler", "wherry")
ALLOWED = {
    "foundation": set(),
    "manifests": set(),
    "scheduler": {"manifests"},
    "wherry.client": {"manifests"},
    "control_plane": {"manifests", "scheduler", "foundation"},
    "agent": {"manifests", "wherry.client", "foundation"},
    "wherry": {*PACKAGES, "wherry.client"},  # the command line sits on top
}


def imports_of(file: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        if isinstance(node, ast.ImportFrom):
            found.add(node.module or "")
    return {name for name in found if name.split(".")[0] in PACKAGES}


def unit_of(module: str) -> str:
    """Return the drawn unit that a module belongs to: its package, or `wherry.client`."""
    return "wherry.client" if module.startswith("wherry.client") else module.split(".")[0]


def files() -> list[Path]:
    return sorted(f for package in PACKAGES for f in (ROOT / package).rglob("*.py"))


@pytest.mark.parametrize("file", files(), ids=lambda f: str(f.relative_to(ROOT)))
def test_a_module_imports_only_what_its_package_may(file: Path) -> None:
    unit = unit_of(".".join(file.relative_to(ROOT).with_suffix("").parts))
    wrong = {name for name in imports_of(file) if unit_of(name) not in ALLOWED[unit] | {unit}}
    assert not wrong, f"{unit} may not import {', '.join(sorted(wrong))}"


@pytest.mark.parametrize("package", ["scheduler", "control_plane/controllers", "agent/reconcile.py"])
def test_what_decides_takes_time_and_chance_from_outside(package: str) -> None:
    path = ROOT / package
    for file in [path] if path.is_file() else sorted(path.rglob("*.py")):
        text = file.read_text()
        for forbidden in ("time.time(", "time.monotonic(", "random.random(", "uuid.", "datetime.now("):
            assert forbidden not in text, f"{file.name} asks the machine: {forbidden}"


@pytest.mark.parametrize("package", ["agent", "control_plane"])
def test_daemons_use_the_task_group_that_leaves_its_parent_as_it_was(package: str) -> None:
    for file in sorted((ROOT / package).rglob("*.py")):
        assert "asyncio.TaskGroup" not in file.read_text(), f"{file.name}: take foundation.tasks.TaskGroup"


def test_no_file_is_longer_than_a_head_can_hold() -> None:
    for folder in (*PACKAGES, "tests", "bench", "script"):
        for file in (ROOT / folder).rglob("*.py"):
            if not {"etcd_stubs", "cri_stubs"} & set(file.parts):
                lines = len(file.read_text().splitlines())
                assert lines <= 500, f"{file.relative_to(ROOT)} has {lines} lines"
