"""The example manifests: each loads, is small enough for a laptop's cluster, and needs one image only."""

from pathlib import Path

import pytest

import manifests
from manifests.containers import Resources
from manifests.workloads import CronJob, Job, Service, Workload
from manifests.yaml_loader import load_files

FOLDER = Path(manifests.__file__).parent / "examples"
FILES = sorted(FOLDER.glob("*.yaml"))


def workloads_in(path: Path) -> list[Workload]:
    return [one.manifest for one in load_files([str(path)]) if isinstance(one.manifest, Workload)]


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_an_example_loads_and_runs_with_the_one_image(file: Path) -> None:
    for one in workloads_in(file):
        spec = one.spec
        for container in (*spec.members.values(), *spec.init_containers):
            assert container.image == "wherry/busybox:1"
            assert container.pull == "ifMissing"


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_an_example_begins_by_saying_what_it_is(file: Path) -> None:
    assert file.read_text().startswith("# ")


def test_all_examples_together_fit_three_small_nodes() -> None:
    loaded = workloads_in(FOLDER)
    needs: list[Resources] = []
    for one in loaded:
        match one:
            case Service():
                copies = one.spec.replicas + one.spec.update.max_surge
            case Job() | CronJob():
                copies = one.spec.parallelism
            case _:
                copies = 3
        needs += [one.spec.reservation()] * copies
    assert {one.kind for one in loaded} == {"Service", "Daemon", "Job", "CronJob"}
    assert sum(r.cpu_m for r in needs) <= 1200
    assert sum(r.memory_bytes for r in needs) <= 512 * 2**20
