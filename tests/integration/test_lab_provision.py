"""The lab's provisioning script for real: a Debian machine with systemd, etcd, docker and Wherry by its units."""

import json
import secrets
from collections.abc import Iterator
from typing import Any

import pytest

from tests.lab.machine import Machine, why_no_machine

pytestmark = [
    pytest.mark.hosts,
    pytest.mark.docker,
    pytest.mark.etcd,
    pytest.mark.timeout(900),
    pytest.mark.skipif(bool(why_no_machine()), reason=why_no_machine()),
]

ADDRESS = "192.168.56.10"
SCRIPT = "/vagrant/script/lab-provision"
EXAMPLES = "/vagrant/manifests/examples"
LAB = {
    "LAB_ADDRESS": ADDRESS,
    "LAB_SERVER": ADDRESS,
    "LAB_JOIN_TOKEN": secrets.token_urlsafe(32),
    "LAB_ADMIN_TOKEN": secrets.token_urlsafe(32),
}


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    """Both roles on one machine: the agent comes first, as its server may come later."""
    made = Machine(tmp_path_factory.mktemp("machine"))
    made.build()
    for role in ("agent", "server"):
        made.run_unbooted(SCRIPT, role, "packages", "wherry")
    with made.booted(ADDRESS):
        provision(made, "agent")
        provision(made, "server")
        yield made


def provision(machine: Machine, role: str) -> None:
    name = "node1" if role == "agent" else "server"
    machine.run(SCRIPT, role, "configure", "start", env={**LAB, "LAB_NAME": name})


def listed(machine: Machine, what: str) -> list[dict[str, Any]]:
    found = json.loads(machine.run("wherry", "get", what, "-o", "json"))
    return list(found["items"] if isinstance(found, dict) else found)


def containers(machine: Machine) -> list[str]:
    return sorted(machine.run("docker", "ps", "--quiet", "--no-trunc").split())


def test_the_units_run_a_cluster_that_runs_the_example(machine: Machine) -> None:
    machine.run("wherry", "apply", "-f", f"{EXAMPLES}/web.yaml", "--wait", timeout_s=180)
    copies = [a for a in listed(machine, "allocations") if a["name"] == "web"]
    pages = {machine.run("curl", "--fail", "--silent", f"http://{ADDRESS}:{a['ports'][0]['host']}/") for a in copies}
    assert pages == {f"Hello from {a['id']} on node1.\n" for a in copies}
    assert len(copies) == 3


def test_restarting_the_units_and_provisioning_again_leave_the_containers_alone(machine: Machine) -> None:
    machine.run("wherry", "apply", "-f", f"{EXAMPLES}/web.yaml", "--wait", timeout_s=180)
    before = containers(machine)
    machine.run("systemctl", "restart", "wherry-agent", "wherry-server")
    machine.run("systemctl", "kill", "--signal=KILL", "wherry-agent")
    provision(machine, "agent")
    provision(machine, "server")
    machine.run("wherry", "apply", "-f", f"{EXAMPLES}/web.yaml", "--wait", timeout_s=180)
    assert containers(machine) == before
    assert len(before) == 3


def test_tokens_belong_to_the_server_alone(machine: Machine) -> None:
    files = machine.run("stat", "--format=%a %U %n", "/etc/wherry/admin.token", "/var/lib/wherry/server")
    assert files.splitlines() == ["600 wherry /etc/wherry/admin.token", "700 wherry /var/lib/wherry/server"]
    assert machine.run("stat", "--format=%a", "/etc/wherry/join.token").strip() == "600"
