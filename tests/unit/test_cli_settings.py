"""Namespaces and the cluster's settings on the command line, against a real HTTP server."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from wherry.cli.commands.apply import result_line
from wherry.cli.explanation import explanation_page
from wherry.cli.main import main
from wherry.cli.text import Style

from .api_stub import Stub, listed

BATCH: dict[str, Any] = {
    "kind": "Namespace",
    "name": "batch",
    "preempts": False,
    "hasSettings": True,
    "createdAt": None,
    "changedBy": "ops",
    "revision": 4,
    "workloads": 2,
    "configs": 1,
    "manifest": {
        "apiVersion": "wherry/v1",
        "kind": "Namespace",
        "metadata": {"name": "batch", "labels": {}},
        "spec": {"preempts": False},
    },
}
CLUSTER: dict[str, Any] = {
    "cluster": "c1",
    "leader": "s1",
    "version": "1",
    "revision": 5,
    "frozen": None,
    "brake": None,
    "settings": {
        "kind": "Cluster",
        "name": "cluster",
        "policy": "spread",
        "preempts": False,
        "hasSettings": True,
        "manifest": {
            "apiVersion": "wherry/v1",
            "kind": "Cluster",
            "metadata": {"name": "cluster", "labels": {}},
            "spec": {"policy": "spread", "preempts": False},
        },
    },
}


def test_namespaces_are_listed_with_what_they_hold(stub: Stub, capsys: pytest.CaptureFixture[str]) -> None:
    stub.answers["GET /v1/namespaces"] = listed(BATCH)
    assert main(["get", "namespaces"]) == 0
    assert capsys.readouterr().out.splitlines() == [
        "NAME   WORKLOADS  CONFIGS  MESSAGE",
        "batch  2          1        evicts nothing",
    ]


def test_settings_are_printed_as_manifests_to_be_edited(stub: Stub, capsys: pytest.CaptureFixture[str]) -> None:
    stub.answers["GET /v1/namespaces/batch"] = (200, BATCH)
    stub.answers["GET /v1/cluster"] = (200, CLUSTER)
    assert main(["get", "ns/batch", "-o", "yaml"]) == 0
    assert yaml.safe_load(capsys.readouterr().out) == BATCH["manifest"]
    assert main(["get", "cluster", "-o", "yaml"]) == 0
    assert yaml.safe_load(capsys.readouterr().out) == CLUSTER["settings"]["manifest"]
    assert main(["get", "cluster"]) == 0
    assert "policy spread; nothing is evicted" in capsys.readouterr().out


def test_a_namespace_and_the_cluster_are_described(stub: Stub, capsys: pytest.CaptureFixture[str]) -> None:
    stub.answers["GET /v1/namespaces/batch"] = (200, BATCH)
    stub.answers["GET /v1/cluster"] = (200, CLUSTER)
    stub.answers["GET /v1/events"] = listed()
    assert main(["describe", "namespace", "batch"]) == 0
    page = capsys.readouterr().out
    assert "namespace/batch" in page
    assert "preempts       no" in page
    assert main(["describe", "cluster"]) == 0
    assert "policy         spread" in capsys.readouterr().out
    assert [r.target.partition("for=")[2] for r in stub.requests if "events" in r.target] == [
        "namespace%2Fbatch&limit=20",
        "cluster%2Fcluster&limit=20",
    ]


def test_settings_are_deleted_by_name_and_by_manifest(
    stub: Stub, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    stub.answers["DELETE /v1/namespaces/batch"] = stub.answers["DELETE /v1/cluster/settings"] = (200, {"revision": 9})
    assert main(["delete", "namespace", "batch"]) == 0
    assert main(["delete", "cluster"]) == 0
    assert capsys.readouterr().out.splitlines() == [
        "settings of namespace/batch deleted: the defaults hold",
        "settings of the cluster deleted: the defaults hold",
    ]
    (tmp_path / "a.yaml").write_text(yaml.safe_dump(CLUSTER["settings"]["manifest"]))
    assert main(["delete", "-f", str(tmp_path / "a.yaml"), "--wait"]) == 0
    del stub.answers["DELETE /v1/cluster/settings"]
    assert main(["delete", "-f", str(tmp_path / "a.yaml")]) == 0
    assert main(["delete", "cluster"]) == 3


def test_what_became_of_settings_is_told_without_a_version() -> None:
    result = {"namespace": "-", "kind": "Cluster", "name": "cluster", "action": "created", "version": 0, "changes": []}
    assert result_line(result) == "cluster/cluster created"
    changed = {**result, "action": "changed", "changes": [{"path": "spec.policy", "old": "pack", "new": "spread"}]}
    assert result_line(changed) == "cluster/cluster changed (spec.policy pack -> spread)"


def test_an_explanation_names_whose_word_holds() -> None:
    rules = {"policy": "spread", "policyOf": "cluster", "preempts": False, "preemptsOf": "namespace"}
    page = explanation_page({"kind": "Service", "name": "web", "namespace": "default", "rules": rules}, Style())
    assert "  policy spread (the cluster's)" in page
    assert "  evicts nothing: preempts is false (the namespace's)" in page
    plain = {"policy": "pack", "policyOf": "default", "preempts": True, "preemptsOf": "default"}
    assert not [line for line in explanation_page({"kind": "Service", "rules": plain}, Style()) if "policy" in line]
