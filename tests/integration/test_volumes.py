"""Named volumes in a whole cluster of two nodes with real containers: kept, pinned, listed, removed when unused."""

import json

import pytest

from tests.integration.test_dev_oci import Dev, dev

__all__ = ["dev"]  # the fixture
pytestmark = [pytest.mark.docker, pytest.mark.timeout(180)]
MANIFEST = """
apiVersion: wherry/v1
kind: Service
metadata: {{name: db}}
spec:
  image: host:/
  command: [sh, -c, "echo {word} >>/data/rows; cat /data/rows; trap 'exit 0' TERM; while :; do sleep 0.1; done"]
  user: "1234:1234"
  volumes: [{{name: data, named: db}}]
  mounts: [{{volume: data, path: /data}}]
  update: {{maxSurge: 0, maxUnavailable: 1, minHealthyTime: 0s}}
"""


def refused(dev: Dev, *words: str) -> str:
    with pytest.raises(AssertionError) as caught:
        dev.run(*words)
    return str(caught.value)


def allocation(dev: Dev) -> dict[str, str]:
    found: dict[str, str] = json.loads(dev.run("get", "allocations", "-o", "json"))["items"][0]
    return found


def test_a_volume_outlives_versions_and_workloads_and_goes_when_nothing_uses_it(dev: Dev) -> None:
    dev.run("apply", "-f", "-", "--wait", stdin=MANIFEST.format(word="one"))
    node = allocation(dev)["node"]
    assert f"{node}/db-0" in dev.run("get", "volumes")
    dev.run("apply", "-f", "-", "--wait", stdin=MANIFEST.format(word="two"))
    assert dev.run("logs", "service/db") == "one\ntwo\n"
    assert "is in use" in refused(dev, "delete", "volume", f"{node}/db-0")
    dev.run("delete", "service", "db", "--wait")
    dev.run("node", "cordon", node)
    dev.run("apply", "-f", "-", stdin=MANIFEST.format(word="three"))
    assert "node.attributes.volumes includes default/db-0" in dev.run("explain", "service/db")
    dev.run("node", "uncordon", node)
    dev.run("wait", "service/db", "--for", "healthy", "--timeout", "60s")
    assert allocation(dev)["node"] == node
    assert dev.run("logs", "service/db") == "one\ntwo\nthree\n"
    dev.run("delete", "service", "db", "--wait")
    dev.run("delete", "volume", f"{node}/db-0")
    assert "db-0" not in dev.run("get", "volumes")
    assert "there is no volume" in refused(dev, "delete", "volume", f"{node}/db-0")
    assert list(dev.folder.glob("nodes/*/volumes/default/*")) == []


def test_a_path_of_the_host_is_refused_where_the_node_does_not_allow_it(dev: Dev) -> None:
    manifest = MANIFEST.format(word="one").replace("named: db", "host: /srv")
    with pytest.raises(AssertionError, match="isolation there is baseline: it needs host-path:/srv"):
        dev.run("apply", "-f", "-", stdin=manifest)
    privileged = "apiVersion: wherry/v1\nkind: Namespace\nmetadata: {name: default}\nspec: {isolation: privileged}\n"
    dev.run("apply", "-f", "-", stdin=f"{privileged}---{manifest}")
    assert "node.attributes.allows includes host-path:/srv" in dev.run("explain", "service/db")
