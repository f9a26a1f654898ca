"""What an agent can be asked of its containers: see agent.answers for how, and each part for what it reads."""

from agent.layers import Layers
from agent.meter import Meter
from agent.node import Node
from manifests.errors import NotFoundError
from manifests.layers import Layer
from manifests.stats import NodeStats


class Glass:
    answers = ("stats", "layers")  # what a server may ask

    def __init__(self, node: Node, meter: Meter, layers: Layers) -> None:
        self._node, self._meter, self._layers = node, meter, layers

    async def stats(self) -> NodeStats:
        return await self._meter.stats()

    async def layers(self, allocation: str) -> tuple[Layer, ...]:
        """Return the allocation's containers and all that is below them. Raises NotFoundError."""
        group = self._node.groups.get(allocation)
        if group is None:
            raise NotFoundError(f"allocation {allocation} is not on this node")
        return await self._layers.of(group)
