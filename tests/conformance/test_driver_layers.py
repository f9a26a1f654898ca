"""What drivers tell of their containers' layers, which is optional: `agent.driver.ShowsLayers`."""

import re

import pytest

from agent.driver import Driver, ShowsLayers
from agent.drivers.local_image import BUSYBOX_IMAGE
from manifests.errors import NotFoundError
from manifests.layers import Layer, LayerKind
from tests.conformance.driver_lab import look, run, shell

pytestmark = pytest.mark.docker
FOREVER = "while :; do sleep 0.1; done"
PROGRAMS = ("cat", "crictl", "docker", "findmnt", "grep", "ls", "crun", "runc")


def all_of(layer: Layer) -> list[Layer]:
    return [layer, *(each for below in layer.below for each in all_of(below))]


async def test_a_driver_tells_how_its_manager_calls_a_container_and_its_image(driver: Driver) -> None:
    assert isinstance(driver, ShowsLayers)
    container = await look(driver, await run(driver, shell(FOREVER)))
    told = await driver.layers(container)
    assert told.kind is LayerKind.CONTAINER
    values = {fact.value for fact in told.facts}
    assert container.id in values
    assert str(container.pid) in values
    image = next(layer for layer in told.below if layer.kind is LayerKind.IMAGE)
    assert image.name.removeprefix("localhost/").removeprefix("docker.io/") == BUSYBOX_IMAGE


async def test_each_fact_has_a_command_and_a_value(driver: Driver) -> None:
    assert isinstance(driver, ShowsLayers)
    container = await look(driver, await run(driver, shell(FOREVER)))
    for layer in all_of(await driver.layers(container)):
        for fact in layer.facts:
            assert fact.value
            assert re.split(r"[ /]", fact.command.partition(" ")[0])[-1] in PROGRAMS, fact.command


async def test_a_container_that_is_gone_is_not_found(driver: Driver) -> None:
    assert isinstance(driver, ShowsLayers)
    container = await look(driver, await driver.create(shell(FOREVER)))
    await driver.remove(container.id)
    with pytest.raises(NotFoundError):
        await driver.layers(container)
