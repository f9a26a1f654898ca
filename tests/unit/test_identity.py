"""Who may be a node: what is known of it against who asks."""

import pytest

from control_plane.identity import check_hello, check_identity, is_reboot
from control_plane.records import ClusterRecord
from manifests.errors import ConflictError
from manifests.nodes import Liveness, NodeStatus
from manifests.session import Hello
from tests.scripted import facts


def hello(agent: str = "a1", boot: str = "b1", cluster: str = "c1", protocol: int = 1) -> Hello:
    return Hello(facts=facts("n1", agent_id=agent, boot=boot), statuses=(), cluster=cluster, protocol=protocol)


def known(liveness: Liveness) -> NodeStatus:
    there = facts("n1", agent_id="a1", boot="b1")
    return NodeStatus(facts=there, liveness=liveness, server="s1-x", session=3, changed_s=0.0)


def is_refused(asks: Hello, liveness: Liveness) -> bool:
    try:
        check_identity(asks, known(liveness), lost_after_s=5.0)
    except ConflictError:
        return True
    return False


@pytest.mark.parametrize(
    ("who", "ready", "suspect", "lost"),
    [
        (hello(), False, False, False),  # the agent itself, restarted
        (hello(boot="b2"), True, False, False),  # rebooted, or cloned
        (hello(agent="a2"), True, True, False),  # another one
        (hello(agent="a2", boot="b2"), True, True, False),
    ],
)
def test_whom_a_node_lets_in_depends_on_how_it_stands(who: Hello, *, ready: bool, suspect: bool, lost: bool) -> None:
    refused = [is_refused(who, liveness) for liveness in (Liveness.READY, Liveness.SUSPECT, Liveness.LOST)]
    assert refused == [ready, suspect, lost]


def test_a_new_name_is_anybodys() -> None:
    check_identity(hello(), None, lost_after_s=5.0)
    assert not is_reboot(hello(), None)


def test_both_agents_are_named_and_what_to_do_about_it() -> None:
    with pytest.raises(ConflictError) as raised:
        check_identity(hello(agent="a2"), known(Liveness.READY), lost_after_s=5.0)
    assert "agent a1 holds that name, at server s1-x" in raised.value.why
    assert "this one is agent a2" in raised.value.why
    assert "5 s after its last word" in raised.value.fix


def test_both_boots_are_named() -> None:
    with pytest.raises(ConflictError) as raised:
        check_identity(hello(boot="b2"), known(Liveness.READY), lost_after_s=5.0)
    assert "boot b1" in raised.value.why
    assert "boot b2" in raised.value.why


def test_another_boot_is_a_reboot() -> None:
    assert is_reboot(hello(boot="b2"), known(Liveness.LOST))
    assert not is_reboot(hello(), known(Liveness.LOST))


def test_an_agent_of_another_cluster_or_protocol_is_refused() -> None:
    here = ClusterRecord(id="c1", created_s=0.0)
    check_hello(hello(), here)
    check_hello(hello(cluster=""), here)
    with pytest.raises(ConflictError, match="another cluster"):
        check_hello(hello(cluster="c2"), here)
    with pytest.raises(ConflictError, match="protocol"):
        check_hello(hello(protocol=9), here)
