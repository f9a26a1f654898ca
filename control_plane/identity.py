"""Who may be a node: checks of a Hello against what is known. Of two agents of one name, one is refused.

The node's record in the store decides, so that all servers judge alike: a name is free for another agent only once the
node is lost, and for another boot of the same agent, which may be a clone, only once the first has fallen silent.
"""

from control_plane.records import ClusterRecord
from manifests.errors import ConflictError
from manifests.nodes import Liveness, NodeStatus
from manifests.session import PROTOCOL, Hello


def check_hello(hello: Hello, cluster: ClusterRecord | None) -> None:
    """Raise ConflictError if the agent is of another time or another cluster."""
    if hello.protocol != PROTOCOL:
        raise ConflictError(
            f"node {hello.facts.name} speaks session protocol {hello.protocol}, and this server {PROTOCOL}",
            fix="Run the same version of Wherry on both.",
        )
    if cluster and hello.cluster not in ("", cluster.id):
        raise ConflictError(
            f"node {hello.facts.name} belongs to another cluster",
            why=f"it joined cluster {hello.cluster}, and this is {cluster.id}",
            fix="To move it, stop its agent, remove its containers and its data folder, and join it anew.",
        )


def check_identity(hello: Hello, known: NodeStatus | None, *, lost_after_s: float) -> None:
    """Raise ConflictError if the name belongs to an agent that is alive, or may be."""
    if known is None or known.liveness is Liveness.LOST:
        return
    name, agent, boot = known.facts.name, hello.facts.agent_id, hello.facts.boot_id
    if known.facts.agent_id != agent:
        raise ConflictError(
            f"another agent is node {name} already",
            why=f"agent {known.facts.agent_id} holds that name, at {_at(known)}; this one is agent {agent}",
            fix=f"Give this one another --name. Is the other gone for good? Its name is free once the node is lost, "
            f"{lost_after_s:g} s after its last word.",
        )
    if known.facts.boot_id != boot and known.liveness is Liveness.READY:
        raise ConflictError(
            f"node {name} is connected already, from another machine or another boot",
            why=f"agent {agent} is alive in boot {known.facts.boot_id}, at {_at(known)}; this one is of boot {boot}",
            fix="After a reboot this passes by itself within seconds. If this machine was cloned, remove its "
            "agent's data folder and give it another --name.",
        )


def is_reboot(hello: Hello, known: NodeStatus | None) -> bool:
    """Say whether the node's machine was started anew since its agent last registered."""
    return known is not None and known.facts.boot_id != hello.facts.boot_id


def _at(known: NodeStatus) -> str:
    return f"server {known.server}, address {known.facts.address or 'unknown'}"
