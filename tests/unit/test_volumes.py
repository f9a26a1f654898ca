"""Volumes: what manifests say, what nodes make of it and refuse, and how they pin an index to a node."""

from pathlib import Path
from typing import Any

import pytest

from agent.group import new_group
from agent.tracked import Tracked, newly_assigned
from agent.volumes import Volumes, refusal_of
from control_plane import keys
from control_plane.controllers.asks import ask_of, resolved
from control_plane.store.protocol import Put
from control_plane.volume_views import volumes as shown
from manifests.containers import NodeResources
from manifests.errors import InvalidError
from manifests.nodes import Liveness, NodeFacts, NodeStatus
from manifests.workloads import WORKLOAD, DaemonSpec, ServiceSpec
from tests.builders import record, workload
from tests.cache import Cache
from tests.scripted_server import assigned, grouped

DB: dict[str, Any] = {
    "volumes": [{"name": "data", "named": "db"}],
    "mounts": [{"volume": "data", "path": "/data"}],
    "update": {"maxSurge": 0, "maxUnavailable": 1},
}


def volumes_at(folder: Path, heard: list[str] | None = None) -> Volumes:
    said: list[str] = [] if heard is None else heard
    return Volumes(folder / "agent" / "volumes", [folder / "docker.sock"], lambda: said.append("changed"))


def with_host(path: Path) -> Tracked:
    volumes: Any = [{"name": "media", "host": str(path)}]
    mounts: Any = [{"volume": "media", "path": "/media"}]
    return newly_assigned(assigned("web-0-a", volumes=volumes, mounts=mounts))


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        (DB | {"update": {}}, "must be 0 with a named volume"),
        (
            DB | {"mounts": [{"volume": "date", "path": "/d"}]},
            "names the volume 'date', but",
        ),
        (DB | {"volumes": [{"name": "data"}]}, "exactly one of named"),
        (DB | {"volumes": [{"name": "data", "named": "a", "host": "/b"}]}, "exactly one of named"),
        (DB | {"volumes": [{"name": "data", "host": "/a/../etc"}]}, "must be an absolute path"),
        (DB | {"volumes": [{"name": "data", "host": "/"}]}, "must be an absolute path"),
        (DB | {"volumes": [{"name": "data", "named": "../etc"}]}, "named"),
        (DB | {"mounts": [{"volume": "data", "path": "/proc/1"}]}, "the kernel's own files"),
        (DB | {"volumes": [*DB["volumes"], {"name": "data", "named": "b"}]}, "two have one name"),
    ],
)
def test_a_fault_is_told(spec: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ServiceSpec.model_validate({"image": "b:1", **spec})


def test_a_daemon_may_keep_a_volume_on_each_node_through_any_rollout() -> None:
    assert DaemonSpec.model_validate({"image": "b:1", "volumes": DB["volumes"], "mounts": DB["mounts"]}).volumes


def test_a_path_of_the_host_needs_permission() -> None:
    assert with_host(Path("/srv/media")).assigned.workload.spec.all_permissions() == ("host-path:/srv/media",)


def test_a_named_volume_is_made_once_and_stays_until_it_is_removed(tmp_path: Path) -> None:
    heard: list[str] = []
    volumes = volumes_at(tmp_path, heard)
    tracked = newly_assigned(assigned("web-0-a", **DB))
    (mount,) = volumes.prepare(tracked)
    volumes.note()
    assert (mount.target, mount.read_only) == ("/data", False)
    assert volumes.ids == ("default/db-0",)
    (Path(mount.source) / "rows").write_text("1")
    assert volumes.prepare(tracked) == (mount,)
    volumes.note()
    assert heard == ["changed"]
    assert Path(mount.source).parent.stat().st_mode & 0o777 == 0o700
    again = volumes_at(tmp_path)
    assert again.ids == ("default/db-0",)
    again.remove("default/db-0")
    again.note()
    assert not again.ids
    assert not list((tmp_path / "agent" / "volumes").iterdir())


def test_containers_of_a_group_share_a_volume_and_see_it_where_each_says(tmp_path: Path) -> None:
    box = {"image": "i"}
    app = box | {"name": "app", "mounts": [{"volume": "data", "path": "/data"}]}
    copy = box | {"name": "copy", "mounts": [{"volume": "data", "path": "/from", "readOnly": True}]}
    group = new_group(grouped(app, copy, box | {"name": "bare"}, volumes=DB["volumes"], update=DB["update"]))
    mounts = [mount for member in group.members for mount in volumes_at(tmp_path).prepare(member)]
    assert len({mount.source for mount in mounts}) == 1
    assert [(mount.target, mount.read_only) for mount in mounts] == [("/data", False), ("/from", True)]


def test_no_path_leads_to_what_no_container_may_see(tmp_path: Path) -> None:
    volumes = volumes_at(tmp_path)
    (tmp_path / "agent" / "state").mkdir(parents=True)
    (tmp_path / "docker.sock").touch()
    for path in (tmp_path, tmp_path / "agent", tmp_path / "agent" / "state", tmp_path / "docker.sock", Path("/run/x")):
        with pytest.raises(InvalidError, match="cannot give volume media"):
            volumes.prepare(with_host(path))


def test_a_link_is_not_followed_and_what_is_missing_is_not_made(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("/etc")
    assert "has a link in it: it is /etc/passwd" in refusal_of(tmp_path / "link" / "passwd", ())
    assert "No such file" in refusal_of(tmp_path / "gone", ())
    assert refusal_of(tmp_path / "real", ()) == ""
    assert not (tmp_path / "gone").exists()


def cache_with(**volumes: tuple[str, ...]) -> Cache:
    cache = Cache()
    for name, kept in volumes.items():
        facts = NodeFacts(
            name=name,
            agent_id=name,
            boot_id="b",
            agent_version="1",
            capacity=NodeResources(),
            allocatable=NodeResources(),
            volumes=kept,
        )
        status = NodeStatus(facts=facts, liveness=Liveness.READY, server="s", session=1, changed_s=0.0)
        cache.write([Put(keys.NODES + name, status.to_bytes())])
    return cache


def test_each_index_goes_where_its_own_volume_is_and_others_are_free() -> None:
    cache = cache_with(n1=("default/db-0", "other/db-2"), n2=("default/db-1",))
    of = record(name="db", replicas=3, **DB)
    cache.write([Put(keys.WORKLOADS + keys.id_of_ref(of.ref), of.to_bytes())])
    asks = resolved([ask_of(of, range(3))], cache.state)
    pins = {ask.indexes: [str(constraint) for constraint in ask.constraints] for ask in asks}
    assert pins == {
        (0,): ["node.attributes.volumes includes default/db-0"],
        (1,): ["node.attributes.volumes includes default/db-1"],
        (2,): [],
    }


def test_volumes_are_shown_by_node_and_namespace() -> None:
    cache = cache_with(n1=("default/db-0", "other/db-2"))
    assert [(v["namespace"], v["name"], v["users"]) for v in shown(cache.state, "default")] == [
        ("default", "n1/db-0", [])
    ]
    assert len(shown(cache.state)) == 2


def test_a_workload_with_volumes_survives_storage() -> None:
    of = workload("Service", "db", **DB)
    assert WORKLOAD.validate_json(WORKLOAD.dump_json(of)) == of
