"""Fixtures of the driver suite."""

import shutil
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from agent.driver import Driver
from tests.conformance.driver_lab import LABS, PROGRAMS, DriverLab, tidied

MORE = ("oci-runc", "podman")  # of which `script/test` takes the likes anyhow; `script/test --drivers` has these
PARAMS = [pytest.param(name, marks=[pytest.mark.drivers] if name in MORE else []) for name in sorted(LABS)]


@pytest_asyncio.fixture(scope="module", loop_scope="module", params=PARAMS)
async def lab(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[DriverLab]:
    if missing := [program for program in PROGRAMS.get(request.param, ()) if shutil.which(program) is None]:
        pytest.skip(f"there is no {missing[0]} on this machine")
    async with LABS[request.param](tmp_path_factory.mktemp("lab")) as made:
        yield made


@pytest_asyncio.fixture
async def driver(lab: DriverLab) -> AsyncIterator[Driver]:
    """A driver, whose containers are removed after the test."""
    async with tidied(lab.driver()) as driver:
        yield driver
