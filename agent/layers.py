"""What an allocation is made of on this node, from its containers down to their processes, found out when asked.

The driver says how its manager sees a container; all below is the kernel's word. Nothing is kept.
"""

import asyncio

from agent.bundle_facts import layers_of_shim
from agent.cgroup_facts import cgroup_layer
from agent.driver import Container, Driver, ShowsLayers
from agent.group import Group
from agent.kernel import Kernel, cgroup_of
from agent.process_facts import namespaces_layer, processes_layer, shim_layer, shim_of
from agent.tracked import Role, Tracked
from manifests.errors import NotFoundError, WherryError
from manifests.layers import Fact, Layer, LayerKind


class Layers:
    def __init__(self, driver: Driver, kernel: Kernel) -> None:
        self._driver, self._kernel = driver, kernel

    async def of(self, group: Group) -> tuple[Layer, ...]:
        """Return a layer for each container, in the order in which they start, a group's sandbox first."""
        with_container = [(m, m.container) for m in group.members if m.container is not None]
        if not with_container:
            why = group.status.message or f"it is {group.status.phase}"
            raise NotFoundError(f"allocation {group.id} has no container now", why=why)
        others = {_who(m): c.pid for m, c in with_container if c.pid} if not group.is_alone else {}
        return tuple([await self._of_container(m, c, others) for m, c in with_container])

    async def _of_container(self, tracked: Tracked, container: Container, others: dict[str, int]) -> Layer:
        told = await self._told(container)
        below = await asyncio.to_thread(self._below, container, others)
        is_known = any(layer.kind is LayerKind.RUNTIME for layer in told.below)
        kept = [layer for layer in below if not (is_known and layer.kind in (LayerKind.BUNDLE, LayerKind.RUNTIME))]
        note = f"attempt {tracked.status.attempt}, {container.state}, called {told.name} here"
        return told.model_copy(update={"name": _who(tracked), "note": note, "below": (*told.below, *kept)})

    async def _told(self, container: Container) -> Layer:
        """Return the container in its manager's words, or in ours where it has no say."""
        if isinstance(self._driver, ShowsLayers):
            try:
                return await self._driver.layers(container)
            except NotFoundError:
                raise
            except WherryError:
                pass  # a manager that hangs doesn't hide what the kernel says
        facts = (Fact(name="id", value=container.id), Fact(name="pid", value=str(container.pid)))
        image = Layer(kind=LayerKind.IMAGE, name=container.image)
        return Layer(kind=LayerKind.CONTAINER, name=container.name, facts=facts, below=(image,))

    def _below(self, container: Container, others: dict[str, int]) -> list[Layer]:
        """Return what the kernel says; nothing of a container that doesn't run."""
        kernel, pid = self._kernel, container.pid
        if not pid:
            return []
        found: list[Layer] = []
        if shim := shim_of(kernel, pid):
            found += [*layers_of_shim(kernel, shim, container.id, pid), shim_layer(kernel, shim)]
        found.append(namespaces_layer(kernel, pid, others))
        cgroup = cgroup_of(kernel, pid, container.id)
        if cgroup is not None:
            found += [cgroup_layer(kernel, cgroup, pid), processes_layer(kernel, cgroup)]
        return found


def _who(tracked: Tracked) -> str:
    return "the group's sandbox" if tracked.role is Role.SANDBOX else tracked.name
