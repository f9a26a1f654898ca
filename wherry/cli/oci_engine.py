"""What `wherry dev` does itself where its nodes run containers by the oci driver: there is no engine to ask."""

import asyncio
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from foundation.tasks import TaskGroup
from manifests.errors import WherryError

if TYPE_CHECKING:
    from agent.driver import ContainerId, Driver

STOP_GRACE_S = 10.0


class OciEngine:
    """Of all the nodes below one folder. The same calls as wherry.cli.machine.Docker."""

    def __init__(self, nodes_dir: Path) -> None:
        self._nodes_dir = nodes_dir

    def cgroup_driver(self) -> str:
        return "cgroupfs"

    def provide_image(self, image: str, make: Callable[[], bytes]) -> bool:
        """Do nothing: the driver makes the examples' image when it is asked for."""
        return False

    def remove_containers(self, cluster: str) -> int:
        """Stop, kindly, and remove a cluster's containers, then the nodes' bridges. Returns how many there were."""
        return asyncio.run(self._remove_all({"wherry.cluster": cluster}))

    async def _remove_all(self, labels: Mapping[str, str]) -> int:
        return sum([await _cleared(folder, labels) for folder in sorted(self._nodes_dir.glob("*/oci"))])


async def _cleared(folder: Path, labels: Mapping[str, str]) -> int:
    from agent.drivers.oci import OciDriver

    driver = OciDriver(folder)
    try:
        found = await driver.list_containers(labels)

        async with TaskGroup() as tasks:
            for container in found:
                tasks.create_task(_clear(driver, container.id), name=f"clear {container.name}")
        await driver.remove_network()
        return len(found)
    except (WherryError, ExceptionGroup):
        return 0  # what is left is taken over by the next `wherry dev` with this folder
    finally:
        await driver.close()


async def _clear(driver: "Driver", container: "ContainerId") -> None:
    await driver.stop(container, signal="SIGTERM", grace_s=STOP_GRACE_S)
    await driver.remove(container)
