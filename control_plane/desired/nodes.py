"""Writes what operators want of nodes: cordon, drain, labels and taints, and to forget one that is gone for good."""

from collections.abc import Callable

from control_plane import keys
from control_plane.desired.actor import current_actor
from control_plane.desired.committer import Committer
from control_plane.desired.node_changes import changed_intent
from control_plane.store.protocol import ABSENT, Delete, ModifiedAt, Put, Revision
from manifests.errors import ConflictError, NotFoundError
from manifests.node_changes import NodePatch
from manifests.nodes import Liveness, NodeIntent


class NodeWriter:
    def __init__(self, committer: Committer) -> None:
        self._committer, self._store, self._state = committer, committer.store, committer.state

    async def set_intent(self, node: str, **changes: object) -> Revision:
        """Change what operators want of a node, e.g. `is_cordoned=True`."""
        return await self._change_intent(node, lambda old: old.model_copy(update=changes))

    async def _change_intent(self, node: str, change: Callable[[NodeIntent], NodeIntent]) -> Revision:
        async def set_once() -> Revision:
            self._known_node(node)
            key = keys.NODE_INTENTS + node
            entry = await self._store.get(key)
            old = NodeIntent.read(entry.value) if entry else NodeIntent(name=node)
            new = change(old)
            if new == old:
                return self._state.revision
            new = new.model_copy(update={"changed_by": current_actor()})
            compare = ModifiedAt(key, entry.mod_revision if entry else ABSENT)
            return await self._committer.commit((compare,), (Put(key, new.to_bytes()),))

        return await self._committer.retried(set_once)

    async def change(self, node: str, patch: NodePatch) -> Revision:
        """Change its labels, taints and metadata, all or nothing. Raises InvalidError, which names each wrong field."""
        status = self._state.nodes.get(node)
        own = status.facts.labels if status else {}
        return await self._change_intent(node, lambda old: changed_intent(old, patch, own))

    async def confirm_lost(self, node: str) -> Revision:
        """Say that a silent node is lost, whatever the brake says: in this silence, and not in a later one."""
        self._known_node(node)
        status = self._state.nodes.get(node)
        if status is None or status.liveness is Liveness.LOST:
            return self._state.revision
        if status.liveness is Liveness.READY:
            raise ConflictError(
                f"node {node} can't be confirmed as lost",
                why="it isn't silent: its agent is connected",
                fix=f"To empty it run `wherry node drain {node}`.",
            )
        return await self.set_intent(node, confirmed_lost=self._state.nodes.modified_at(node))

    async def release(self, node: str) -> Revision:
        """Let the node stop what it keeps from before the present generation of the store."""
        return await self.set_intent(node, released=self._state.generation)

    async def delete(self, node: str) -> Revision:
        """Forget a node that is lost for good. What ran there counts as gone."""
        self._known_node(node)
        status = self._state.nodes.get(node)
        if status and status.liveness is not Liveness.LOST:
            why = "its agent is connected" if status.liveness is Liveness.READY else "it is silent, but not lost yet"
            fix = f"Drain it, then stop its agent; `wherry node confirm-lost {node}` calls a silent one lost."
            raise ConflictError(f"node {node} can't be deleted", why=why, fix=fix)
        compare = ModifiedAt(keys.NODES + node, self._state.nodes.modified_at(node))
        writes = (
            Delete(keys.NODES + node),
            Delete(keys.NODE_INTENTS + node),
            self._committer.deletion(keys.node_place(node)),
        )
        return await self._committer.commit((compare,), writes)

    def _known_node(self, node: str) -> None:
        if node not in self._state.nodes:
            names = ", ".join(sorted(self._state.nodes.ids())) or "none"
            raise NotFoundError(f"there is no node {node}", why=f"the nodes are: {names}")
