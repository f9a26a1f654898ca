"""What an agent can be asked of its containers: see agent.answers for how, and each part for what it reads."""

from agent.meter import Meter
from manifests.stats import NodeStats


class Glass:
    def __init__(self, meter: Meter) -> None:
        self._meter = meter

    @property
    def answers(self) -> tuple[str, ...]:
        """What a server may ask."""
        return ("stats",)

    async def stats(self) -> NodeStats:
        return await self._meter.stats()
