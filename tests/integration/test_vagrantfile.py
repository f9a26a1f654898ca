"""The Vagrantfile says what it should for each provider; a recorder in Ruby evaluates it without Vagrant."""

import json
import os
import shutil
import stat
import subprocess
from pathlib import Path
from typing import Any

import pytest

REPOSITORY = Path(__file__).parents[2]
RUBY = shutil.which("ruby")
pytestmark = pytest.mark.skipif(RUBY is None, reason="needs ruby, which `script/setup --tests` installs")


def run_ruby(dotfiles: Path, **knobs: str) -> "subprocess.CompletedProcess[str]":
    command = [RUBY or "ruby", str(REPOSITORY / "tests/vagrant_recorder.rb"), str(REPOSITORY / "Vagrantfile")]
    clean = {k: v for k, v in os.environ.items() if not k.startswith("LAB_")}
    env = {**clean, "VAGRANT_DOTFILE_PATH": str(dotfiles), **knobs}
    return subprocess.run(command, env=env, capture_output=True, text=True, timeout=30, check=False)


def recorded(dotfiles: Path, **knobs: str) -> dict[str, Any]:
    """Return the settings that the Vagrantfile makes."""
    done = run_ruby(dotfiles, **knobs)
    assert done.returncode == 0, done.stderr
    return dict(json.loads(done.stdout)["vm"])


def addresses(vm: dict[str, Any]) -> dict[str, str]:
    machines = {name.removeprefix("machine "): m["vm"] for name, m in vm.items() if name.startswith("machine ")}
    return {name: m["network private_network"]["ip"] for name, m in machines.items()}


def test_the_lab_is_one_server_and_two_nodes_on_a_private_network(tmp_path: Path) -> None:
    vm = recorded(tmp_path)
    assert vm["box"] == "cloud-image/debian-12"
    assert addresses(vm) == {"server": "192.168.56.10", "node1": "192.168.56.11", "node2": "192.168.56.12"}


@pytest.mark.parametrize("provider", ["virtualbox", "libvirt"])
def test_each_provider_gives_the_machines_their_size(tmp_path: Path, provider: str) -> None:
    small = recorded(tmp_path)[f"provider {provider}"]
    assert (small["memory"], small["cpus"]) == (1024, 1)
    large = recorded(tmp_path, LAB_MEMORY="2048", LAB_CPUS="2")[f"provider {provider}"]
    assert (large["memory"], large["cpus"]) == (2048, 2)


def test_the_knobs_choose_the_nodes_the_network_and_the_box(tmp_path: Path) -> None:
    vm = recorded(tmp_path, LAB_NODES="4", LAB_NET="192.168.105", LAB_BOX="lab/debian12")
    assert vm["box"] == "lab/debian12"
    assert addresses(vm)["node4"] == "192.168.105.14"
    assert vm["machine node4"]["vm"]["provision shell"]["env"]["LAB_SERVER"] == "192.168.105.10"


def test_without_kvm_libvirt_emulates_and_waits_longer(tmp_path: Path) -> None:
    assert "driver" not in recorded(tmp_path)["provider libvirt"]
    vm = recorded(tmp_path, LAB_TCG="1")
    assert vm["provider libvirt"]["driver"] == "qemu"
    assert vm["boot_timeout"] == 600


def test_each_machine_is_made_by_the_one_script_in_its_role(tmp_path: Path) -> None:
    vm = recorded(tmp_path)
    steps = {name: vm[f"machine {name}"]["vm"]["provision shell"] for name in ("server", "node1", "node2")}
    assert {name: step["args"] for name, step in steps.items()} == {
        "server": ["server"], "node1": ["agent"], "node2": ["agent"]
    }  # fmt: skip
    assert os.access(REPOSITORY / steps["server"]["path"], os.X_OK)
    assert all(step["env"]["LAB_ADDRESS"] == addresses(vm)[name] for name, step in steps.items())


def test_tokens_are_made_once_kept_private_and_given_to_whom_they_belong(tmp_path: Path) -> None:
    first, second = recorded(tmp_path), recorded(tmp_path)
    server = first["machine server"]["vm"]["provision shell"]
    node = first["machine node1"]["vm"]["provision shell"]
    assert server["env"]["LAB_JOIN_TOKEN"] == node["env"]["LAB_JOIN_TOKEN"]
    assert len(server["env"]["LAB_ADMIN_TOKEN"]) > 40
    assert "LAB_ADMIN_TOKEN" not in node["env"]
    assert server["sensitive"] is True
    assert server["env"]["LAB_ADMIN_TOKEN"] not in first["machine server"]["vm"]["post_up_message"]
    assert second["machine server"]["vm"]["provision shell"]["env"] == server["env"]
    assert stat.S_IMODE((tmp_path / "wherry/admin.token").stat().st_mode) == 0o600


def test_an_old_vagrant_is_warned_about_boxes_unless_one_is_chosen(tmp_path: Path) -> None:
    assert "use 2.4 or later" in run_ruby(tmp_path, RECORDED_VAGRANT="2.3.4").stderr
    assert run_ruby(tmp_path, RECORDED_VAGRANT="2.3.4", LAB_BOX="lab/debian12").stderr == ""
    assert run_ruby(tmp_path).stderr == ""


def test_a_count_of_nodes_that_has_no_addresses_is_refused(tmp_path: Path) -> None:
    done = run_ruby(tmp_path, LAB_NODES="500")
    assert done.returncode == 1
    assert "LAB_NODES must be from 1 to 200" in done.stderr


@pytest.mark.parametrize("arguments", [[], ["master"], ["agent", "dance"]])
def test_the_provisioning_script_refuses_what_it_does_not_know(arguments: list[str]) -> None:
    script = str(REPOSITORY / "script/lab-provision")
    done = subprocess.run([script, *arguments], capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode == 2


def test_stopping_the_agent_leaves_its_containers_alone() -> None:
    unit = (REPOSITORY / "packaging/systemd/wherry-agent.service").read_text()
    assert "KillMode=process" in unit
