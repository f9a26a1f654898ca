"""Pulls from a real registry with TLS and passwords, by each driver: what works, and what is said of what doesn't."""

import asyncio
import contextlib
import logging
import os
import time
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import pytest
import pytest_asyncio

from agent.driver import Driver, HeldImage, ImageError
from agent.drivers.cri import CriDriver
from agent.drivers.docker import DockerDriver
from agent.drivers.oci import OciDriver
from agent.folder import LocalFolder
from agent.image_choice import ImagePolicy
from agent.image_garbage import ImageGarbage
from agent.image_ledger import ImageLedger
from agent.references import at_digest
from agent.registries import Registries
from foundation.clock import SystemClock
from manifests.containers import PullPolicy
from manifests.errors import ConflictError, NotFoundError
from tests import containerd as containerds
from tests import podman as podmans
from tests import private_registry as registries
from tests.conformance.driver_lab import ended, run, shell
from tests.containerd import containerd
from tests.dockerd import dockerd
from tests.oci import oci_rig
from tests.podman import podman
from tests.private_registry import PASSWORD, Authority, PrivateRegistry, private_registry

pytestmark = [
    pytest.mark.docker,
    pytest.mark.asyncio(loop_scope="module"),
    pytest.mark.skipif(not registries.is_installed(), reason="needs docker-registry and htpasswd"),
]


class Making(Protocol):
    def __call__(self, file: Path) -> Driver: ...


@dataclass
class Lab:
    """One manager, which trusts the registry's CA where it must by itself, beside a registry."""

    kind: str
    served: PrivateRegistry
    make: Making
    folder: Path

    @asynccontextmanager
    async def driver(self, **words: str | bool) -> AsyncIterator[Driver]:
        made = self.make(self.served.registries_file(**words))  # type: ignore[arg-type]  # a test's own words
        try:
            yield made
        finally:
            await made.close()


def _env(authority: Authority) -> Mapping[str, str]:
    """Go's libraries take the CAs of the host from this file, as if an operator had added ours to them."""
    return {"SSL_CERT_FILE": str(authority.file)}


@asynccontextmanager
async def _manager(kind: str, folder: Path, env: Mapping[str, str]) -> AsyncIterator[tuple[str, Making]]:
    if kind == "docker":
        async with dockerd(folder, bip=None, images=False, env=env) as daemon:
            yield daemon.netns, lambda file: DockerDriver(daemon.socket, registries=Registries(file))
    elif kind == "podman":
        async with podman(folder, env=env) as service:
            yield service.netns, lambda file: DockerDriver(service.socket, registries=Registries(file))
    elif kind == "cri":
        async with containerd(folder, env=env) as runtime:
            logs = runtime.folder / "logs"
            yield (
                runtime.netns,
                lambda file: CriDriver(
                    runtime.socket, log_root=logs, cgroup_parent=runtime.cgroup_parent, registries=Registries(file)
                ),
            )
    else:
        async with oci_rig() as rig:
            yield (
                rig.netns,
                lambda file: OciDriver(
                    rig.folder / "oci",
                    cgroup_parent=rig.cgroup_parent,
                    netns=f"/run/netns/{rig.netns}",
                    registries=Registries(file),
                ),
            )


@pytest_asyncio.fixture(scope="module", loop_scope="module", params=["docker", "podman", "cri", "oci"])
async def lab(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Lab]:
    kind, folder = str(request.param), tmp_path_factory.mktemp("lab")
    if kind == "cri" and not containerds.is_installed():
        pytest.skip("there is no containerd")
    if kind == "podman" and not podmans.is_installed():
        pytest.skip("there is no podman")
    authority = Authority(folder)
    async with _manager(kind, folder, _env(authority)) as (netns, make):
        with private_registry(netns, authority) as served:
            await asyncio.to_thread(served.push, "team/web:1", "one")
            yield Lab(kind, served, make, folder)


@pytest.fixture(autouse=True)
def told(caplog: pytest.LogCaptureFixture) -> Iterator[pytest.LogCaptureFixture]:
    with caplog.at_level(logging.DEBUG):
        yield caplog


async def test_with_credentials_a_private_image_is_pulled_and_they_are_left_nowhere(
    lab: Lab, told: pytest.LogCaptureFixture
) -> None:
    image = f"{lab.served.host}/team/web:1"
    async with asyncio.timeout(60), lab.driver() as driver:
        await driver.ensure_image(image, PullPolicy.ALWAYS)
        container = await run(driver, shell('[ "$MARK" = one ] && exit 7', image=image))
        assert (await ended(driver, container)).exit_code == 7
        await driver.remove(container)
    assert PASSWORD not in told.text
    assert not [name for name in os.listdir("/tmp") if name.startswith("wherry-pull-")]


async def test_without_credentials_it_says_where_they_belong(lab: Lab, tmp_path: Path) -> None:
    driver = lab.make(tmp_path / "none")
    try:
        # The registry's CA is known from its file alone by oci: that this fails for want of trust is another test's.
        if lab.kind == "oci":
            (tmp_path / "none").write_text(
                f"registries: {{'{lab.served.host}': {{caFile: {lab.served.folder}/ca.pem}}}}"
            )
            (tmp_path / "none").chmod(0o600)
        with pytest.raises(ImageError, match="wants credentials, and this node has none") as caught:
            await driver.ensure_image(f"{lab.served.host}/team/web:1", PullPolicy.ALWAYS)
        assert str(tmp_path / "none") in caught.value.fix
    finally:
        await driver.close()


async def test_a_wrong_password_is_said_to_be_refused(lab: Lab, told: pytest.LogCaptureFixture) -> None:
    async with lab.driver(password="wr ong") as driver:
        with pytest.raises(ImageError, match="refused ci with the password") as caught:
            await driver.ensure_image(f"{lab.served.host}/team/web:1", PullPolicy.ALWAYS)
    assert "wr ong" not in str(caught.value) + told.text


async def test_an_unknown_tag_and_an_unknown_repository_are_said_to_be_missing(lab: Lab) -> None:
    async with lab.driver() as driver:
        for name in ("team/web:2", "team/none:1"):
            with pytest.raises(ImageError, match="has no such image"):
                await driver.ensure_image(f"{lab.served.host}/{name}", PullPolicy.IF_MISSING)


async def test_a_host_without_a_registry_is_said_to_be_out_of_reach(lab: Lab) -> None:
    host = f"{registries.ADDRESS}:5999"
    async with lab.driver() as driver:
        with pytest.raises(ImageError, match=f"{host} can't be reached"):
            await driver.ensure_image(f"{host}/team/web:1", PullPolicy.IF_MISSING)


@pytest.mark.parametrize("kind", ["docker", "oci"])
async def test_an_unknown_authority_is_said_to_be_that(kind: str, tmp_path: Path) -> None:
    async with _manager(kind, tmp_path, {}) as (netns, make):
        with private_registry(netns, Authority(tmp_path)) as served:
            driver = make(served.registries_file(ca=False))
            try:
                with pytest.raises(ImageError, match="doesn't trust the certificate"):
                    await driver.ensure_image(f"{served.host}/team/web:1", PullPolicy.IF_MISSING)
            finally:
                await driver.close()


async def test_an_image_is_known_by_its_digest_wherever_its_tag_moves(lab: Lab) -> None:
    image, served = f"{lab.served.host}/team/moves:1", lab.served
    first = await asyncio.to_thread(served.push, "team/moves:1", "first")
    async with asyncio.timeout(90), lab.driver() as driver:
        assert (await driver.ensure_image(image, PullPolicy.IF_MISSING)).digest == first
        assert (await driver.ensure_image(image, PullPolicy.IF_MISSING)).digest == first
        second = await asyncio.to_thread(served.push, "team/moves:1", "second")
        assert (await driver.ensure_image(image, PullPolicy.IF_MISSING)).digest == first
        assert (await driver.ensure_image(image, PullPolicy.ALWAYS)).digest == second
        pinned = f"{lab.served.host}/team/moves@{first}"
        assert (await driver.ensure_image(pinned, PullPolicy.ALWAYS)).digest == first
        container = await run(driver, shell('[ "$MARK" = first ] && exit 7', image=pinned))
        assert (await ended(driver, container)).exit_code == 7
        await driver.remove(container)


async def test_an_image_goes_with_its_last_name_and_never_from_under_a_container(lab: Lab) -> None:
    image = f"{lab.served.host}/team/goes:1"
    digest = await asyncio.to_thread(lab.served.push, "team/goes:1", "goes")
    names = {image, f"{lab.served.host}/team/goes@{digest}"}

    async def held(driver: Driver) -> HeldImage | None:
        return next((one for one in await driver.list_images() if names & set(one.names)), None)

    async def remove_all(driver: Driver) -> None:
        for name in sorted(names):  # a name may go with another one, and docker lets go of one that isn't the last
            with contextlib.suppress(NotFoundError):
                await driver.remove_image(name)

    async with asyncio.timeout(90), lab.driver() as driver:
        assert (await driver.ensure_image(image, PullPolicy.IF_MISSING)).was_pulled
        found = await held(driver)
        assert found is not None
        assert (set(found.names), found.is_used) == (names, False)
        assert found.size_bytes > 100_000
        container = await run(driver, shell("exit 7", image=image))
        await ended(driver, container)
        found = await held(driver)
        assert found is not None
        assert found.is_used
        with pytest.raises(ConflictError):
            await remove_all(driver)
        await driver.ensure_image(image, PullPolicy.IF_MISSING)
        await driver.remove(container)
        await remove_all(driver)
        assert await held(driver) is None
        with pytest.raises(NotFoundError):
            await driver.remove_image(image)
        assert (await driver.ensure_image(image, PullPolicy.IF_MISSING)).was_pulled
        container = await run(driver, shell('[ "$MARK" = goes ] && exit 7', image=image))
        assert (await ended(driver, container)).exit_code == 7
        await driver.remove(container)


async def test_a_full_disk_takes_what_nothing_needs_and_leaves_what_a_container_has(lab: Lab, tmp_path: Path) -> None:
    images = [f"{lab.served.host}/team/{name}:1" for name in ("idle", "held", "others")]
    for image in images:
        await asyncio.to_thread(lab.served.push, image.partition("/")[2], image)
    ledger, long_ago_s = ImageLedger(LocalFolder(tmp_path)), time.time() - 86_400
    async with asyncio.timeout(90), lab.driver() as driver:
        for image in images:
            ready = await driver.ensure_image(image, PullPolicy.IF_MISSING)
            for name in (image, at_digest(image, ready.digest)) if image != images[2] else ():
                ledger.used(name, long_ago_s, was_pulled=True)
        container = await run(driver, shell("exit 7", image=images[1]))
        clock, full = SystemClock(), lambda _: 90.0
        collector = ImageGarbage(driver, ledger, lambda: (), ImagePolicy(), clock, percent_of=full)
        await collector.sweep()
        left = {name for image in await driver.list_images() for name in image.names}
        assert left.isdisjoint({images[0]})
        assert set(images[1:]) <= left
        await driver.remove(container)
        await run(driver, shell("exit 7", image=images[2]))
