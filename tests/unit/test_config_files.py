"""Configs as files and variables: whole, for reading only, never outside their folder, gone with their allocation."""

from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from agent.config_files import ConfigFiles, config_env
from agent.container_spec import Surroundings, container_spec
from agent.driver import Mount
from agent.group import new_group
from agent.ownership import Ownership
from agent.state_file import SavedAllocation, to_group, to_saved
from agent.tracked import Tracked, newly_assigned
from manifests.containers import Resources
from manifests.errors import InvalidError, UnavailableError
from manifests.session import Assigned
from tests.scripted_server import assigned, grouped

SITE = {"name": "site", "path": "/etc/site.conf"}
MODE = {"name": "mode", "env": "MODE"}
CONTENT = {"site": "listen 80\n", "mode": "fast"}
AROUND = Surroundings("c1", "n1", "", "/wherry", Resources.of(cpu_m=1000, memory_bytes=2**30, pids=500))


def with_content(wanted: Assigned, content: dict[str, str]) -> Assigned:
    return wanted.model_copy(update={"configs": content})


def record(*mounts: dict[str, str], allocation: str = "web-0-a") -> Tracked:
    return newly_assigned(with_content(assigned(allocation, configs=list(mounts)), CONTENT))


def test_a_config_becomes_a_file_that_all_may_read_in_a_folder_that_none_may_enter(tmp_path: Path) -> None:
    files = ConfigFiles(tmp_path / "configs")
    (mount,) = files.write(record(SITE, MODE))
    file = Path(mount.source)
    assert (mount.target, file.read_text(), file.stat().st_mode & 0o777) == ("/etc/site.conf", "listen 80\n", 0o444)
    assert (tmp_path / "configs").stat().st_mode & 0o777 == 0o700
    assert [entry.name for entry in file.parent.iterdir()] == ["main-0"]


def test_writing_again_leaves_what_is_right_and_replaces_what_is_not(tmp_path: Path) -> None:
    files = ConfigFiles(tmp_path)
    (mount,) = files.write(record(SITE))
    inode = Path(mount.source).stat().st_ino
    files.write(record(SITE))
    assert Path(mount.source).stat().st_ino == inode
    changed = with_content(record(SITE).assigned, {"site": "listen 81\n"})
    files.write(newly_assigned(changed))
    assert Path(mount.source).read_text() == "listen 81\n"


def test_containers_of_a_group_have_files_of_their_own(tmp_path: Path) -> None:
    app = {"name": "app", "image": "i", "configs": [SITE]}
    group = new_group(with_content(grouped(app, {**app, "name": "api"}), CONTENT))
    mounts = [ConfigFiles(tmp_path).write(member) for member in group.members if ConfigFiles.is_needed(member)]
    assert sorted(Path(mount.source).name for (mount,) in mounts) == ["api-0", "app-0"]


def test_a_container_without_files_touches_nothing(tmp_path: Path) -> None:
    assert not ConfigFiles.is_needed(record(MODE))
    assert ConfigFiles(tmp_path / "none").allocations() == []
    assert not (tmp_path / "none").exists()


@pytest.mark.parametrize("allocation", ["../up", "a/b", "..", "", "/etc", "a\n", "a..b"])
def test_no_name_leads_out_of_the_folder(tmp_path: Path, allocation: str) -> None:
    folder = tmp_path / "a" / "b"
    with pytest.raises(InvalidError):
        ConfigFiles(folder).write(record(SITE, allocation=allocation))
    with pytest.raises(InvalidError):
        ConfigFiles(folder).remove([allocation])
    assert list(tmp_path.iterdir()) == []


def test_what_is_gone_is_removed_and_the_rest_stays(tmp_path: Path) -> None:
    files = ConfigFiles(tmp_path)
    files.write(record(SITE))
    files.write(record(SITE, allocation="web-1-a"))
    files.remove(["web-0-a", "web-2-a"])
    assert files.allocations() == ["web-1-a"]


def test_content_that_was_not_sent_is_named_and_none_is_ever_told(tmp_path: Path) -> None:
    lacking = newly_assigned(with_content(record(SITE).assigned, {"other": "a secret of sorts"}))
    with pytest.raises(InvalidError, match="config site") as caught:
        ConfigFiles(tmp_path).write(lacking)
    assert "secret" not in str(caught.value)


def test_a_disk_that_refuses_is_no_fault_of_the_container(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UnavailableError, match="web-0-a"):
        ConfigFiles(tmp_path / "file").write(record(SITE))


def test_a_config_as_a_variable_wins_over_none_of_wherrys_own() -> None:
    tracked = record(MODE, {"name": "site", "env": "WHERRY_NODE"})
    spec = container_spec(tracked, AROUND, Ownership(b"k" * 32), (Mount("/a", "/b"),))
    assert config_env(tracked) == {"MODE": "fast", "WHERRY_NODE": "listen 80\n"}
    assert (spec.env["MODE"], spec.env["WHERRY_NODE"], spec.mounts) == ("fast", "n1", (Mount("/a", "/b"),))


def test_the_content_outlives_the_agent() -> None:
    saved = SavedAllocation.read(to_saved(new_group(record(SITE).assigned)).to_bytes())
    assert to_group(saved).first.assigned.configs == CONTENT


@pytest.mark.parametrize(
    "spec",
    [
        {"configs": [SITE, {**SITE, "name": "other"}]},
        {"configs": [MODE], "env": {"MODE": "x"}},
        {"configs": [MODE, {**MODE, "name": "other"}]},
    ],
)
def test_two_configs_at_one_place_are_refused(spec: dict[str, Any]) -> None:
    with pytest.raises(ValidationError, match="is there twice"):
        assigned("web-0-a", **spec)
