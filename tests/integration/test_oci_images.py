"""Images of the oci driver: layers that remove, replace or would break out; files made by skopeo; a registry."""

import asyncio
import hashlib
import io
import json
import os
import shutil
import stat
import subprocess
import tarfile
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from agent.driver import ContainerSpec, ExecResult, ImageError
from agent.drivers.local_image import busybox_image_tar
from agent.drivers.oci import OciDriver
from agent.drivers.oci_images import Images
from manifests.containers import PullPolicy
from tests.conformance.driver_lab import SUITE, ended, run, shell, tidied, until
from tests.conformance.test_driver import read, text
from tests.oci import OciRig, oci_rig
from tests.registry import registry

pytestmark = [pytest.mark.docker, pytest.mark.asyncio(loop_scope="module")]
SKOPEO_S = 60


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def rig() -> AsyncIterator[OciRig]:
    async with oci_rig() as made:
        yield made


@pytest_asyncio.fixture(loop_scope="module")
async def driver(rig: OciRig) -> AsyncIterator[OciDriver]:
    made = rig.driver()
    async with tidied(made):
        yield made


def layer(*entries: tuple[str, bytes | str | None], links: tuple[tuple[str, str], ...] = ()) -> bytes:
    """Return a tar of files (bytes), symbolic links (text) and folders (None), and of hard links."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name, content in entries:
            member = tarfile.TarInfo(name)
            member.mode = 0o755
            if content is None:
                member.type = tarfile.DIRTYPE
            elif isinstance(content, str):
                member.type, member.linkname = tarfile.SYMTYPE, content
            else:
                member.size = len(content)
            archive.addfile(member, io.BytesIO(content) if isinstance(content, bytes) else None)
        for name, target in links:
            member = tarfile.TarInfo(name)
            member.type, member.linkname = tarfile.LNKTYPE, target
            archive.addfile(member)
    return buffer.getvalue()


def docker_archive(path: Path, *layers: bytes, spoil: bool = False) -> None:
    """Write what `docker save` would, of an image of these layers."""
    digests = [f"sha256:{hashlib.sha256(one).hexdigest()}" for one in layers]
    config = {"config": {"Env": ["PATH=/bin"]}, "rootfs": {"type": "layers", "diff_ids": digests}}
    manifest = [{"Config": "c.json", "RepoTags": ["web:1"], "Layers": [f"{n}.tar" for n in range(len(layers))]}]
    files = {"c.json": json.dumps(config).encode(), "manifest.json": json.dumps(manifest).encode()}
    files |= {f"{n}.tar": one + (b"x" if spoil else b"") for n, one in enumerate(layers)}
    path.write_bytes(layer(*files.items()))


def busybox_layer() -> bytes:
    with tarfile.open(fileobj=io.BytesIO(busybox_image_tar())) as archive:
        member = archive.extractfile("layer.tar")
        assert member is not None
        return member.read()


async def said(driver: OciDriver, spec: ContainerSpec) -> str:
    """Return what a container wrote, once it has ended well."""
    await driver.ensure_image(spec.image, PullPolicy.IF_MISSING)
    container = await run(driver, spec)
    done = await ended(driver, container)
    chunks = await read(driver, container)
    assert done.exit_code == 0, text(chunks, "stderr")
    return text(chunks, "stdout")


async def test_upper_layers_replace_and_remove_what_is_below(rig: OciRig, driver: OciDriver) -> None:
    below = layer(("a", None), ("a/old", b"1"), ("a/keep", b"2"), ("b", None), ("b/old", b"3"), ("c", b"4"))
    above = layer(("a/.wh.old", b""), ("b/.wh..wh..opq", b""), ("b/new", b"5"), ("c", None), ("c/d", b"6"))
    docker_archive(rig.images / "layers.tar", busybox_layer(), below, above)
    image = f"docker-archive:{rig.images}/layers.tar:web:1"
    assert await said(driver, shell("ls /a /b /c; cat /c/d", image=image)) == "/a:\nkeep\n\n/b:\nnew\n\n/c:\nd\n6"


async def test_no_layer_writes_outside_of_its_folder(rig: OciRig, tmp_path: Path) -> None:
    target = tmp_path / "target"
    target.mkdir()
    bad = layer(
        ("up", str(target)),
        ("up/through-a-link", b"x"),
        (f"../../../../../../..{target}/by-dots", b"x"),
        (f"{target}/by-an-absolute-name", b"x"),
        ("passwd", "/etc/passwd"),
        links=(("hard", "passwd"), ("shadow", "/etc/shadow")),
    )
    docker_archive(rig.images / "bad.tar", bad)
    images = Images(rig.folder / "store", [rig.images])
    with pytest.raises(ImageError):  # the hard link to what isn't in the layer
        await asyncio.to_thread(images.ensure, f"docker-archive:{rig.images}/bad.tar", PullPolicy.IF_MISSING)
    assert list(target.iterdir()) == []
    assert [path for path in images.layers.iterdir() if not path.name.startswith(".")] == []


async def test_modes_owners_and_hard_links_are_kept(rig: OciRig, driver: OciDriver) -> None:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        member = tarfile.TarInfo("tool")
        member.mode, member.uid, member.gid, member.size = 0o4755, 12, 34, 1
        archive.addfile(member, io.BytesIO(b"x"))
        link = tarfile.TarInfo("again")
        link.type, link.linkname = tarfile.LNKTYPE, "tool"
        archive.addfile(link)
    docker_archive(rig.images / "modes.tar", busybox_layer(), buffer.getvalue())
    image = f"docker-archive:{rig.images}/modes.tar"
    assert await said(driver, shell("stat -c '%a %u %g %h' /tool /again", image=image)) == "4755 12 34 2\n" * 2


async def test_a_damaged_layer_is_refused_and_leaves_nothing(rig: OciRig) -> None:
    docker_archive(rig.images / "spoilt.tar", layer(("x", b"1")), spoil=True)
    images = Images(rig.folder / "spoilt", [rig.images])
    with pytest.raises(ImageError, match="is damaged"):
        await asyncio.to_thread(images.ensure, f"docker-archive:{rig.images}/spoilt.tar", PullPolicy.IF_MISSING)
    assert list(images.layers.iterdir()) == []


@pytest.mark.parametrize("kind", ["oci", "oci-archive"])
async def test_what_skopeo_writes_is_run(rig: OciRig, driver: OciDriver, kind: str) -> None:
    source, target = rig.images / f"{kind}-source.tar", rig.images / f"{kind}-web"
    source.write_bytes(busybox_image_tar())
    command = ["skopeo", "copy", "--quiet", f"docker-archive:{source}", f"{kind}:{target}:1.0"]
    await asyncio.to_thread(subprocess.run, command, check=True, capture_output=True, timeout=SKOPEO_S)
    assert await said(driver, shell("echo here", image=f"{kind}:{target}:1.0")) == "here\n"
    with pytest.raises(ImageError, match=r"no image 2\.0"):
        await driver.ensure_image(f"{kind}:{target}:2.0", PullPolicy.IF_MISSING)


async def test_a_folder_is_an_image_and_stays_as_it_is(rig: OciRig, driver: OciDriver) -> None:
    root = rig.images / "plain"
    (root / "bin").mkdir(parents=True)
    shutil.copy(shutil.which("busybox") or "", root / "bin/sh")
    (root / "bin/sh").chmod(0o755)
    assert await said(driver, shell("echo x > /new; echo *", image=f"dir:{root}")) == "bin dev etc new proc sys\n"
    assert sorted(path.name for path in root.iterdir()) == ["bin"]


async def test_the_host_is_an_image_of_programs_without_its_secrets(driver: OciDriver) -> None:
    script = "test -x /usr/bin/env; ! test -e /etc/shadow; ! touch /usr/x; touch /tmp/x; whoami"
    lines = await said(driver, shell(f"set -e; {script}", image="host:/"))
    assert lines == "root\n"


@pytest.mark.parametrize("path", ["/etc", "relative", "/proc/1/root"])
async def test_a_folder_outside_of_those_allowed_is_refused(driver: OciDriver, path: str) -> None:
    with pytest.raises(ImageError, match="--image-dir"):
        await driver.ensure_image(f"dir:{path}", PullPolicy.IF_MISSING)


async def test_a_link_that_leads_out_of_an_allowed_folder_is_refused(rig: OciRig, driver: OciDriver) -> None:
    (rig.images / "out").symlink_to("/")
    with pytest.raises(ImageError, match="--image-dir"):
        await driver.ensure_image(f"dir:{rig.images}/out", PullPolicy.IF_MISSING)


async def test_an_image_of_a_registry_is_pulled_once_for_all_who_ask(rig: OciRig, driver: OciDriver) -> None:
    async with registry(rig.netns) as served:
        async with asyncio.timeout(30), asyncio.TaskGroup() as tasks:
            for _ in range(8):
                tasks.create_task(driver.ensure_image(served.image, PullPolicy.ALWAYS))
        assert served.layers_sent == 1
        assert await said(driver, shell("echo pulled", image=served.image)) == "pulled\n"
        with pytest.raises(ImageError, match="no such image"):
            await driver.ensure_image(f"{served.address}/busybox:2", PullPolicy.IF_MISSING)


async def test_a_pull_does_not_hold_up_the_end_of_the_agent(rig: OciRig) -> None:
    async with registry(rig.netns) as served:
        served.open_blobs.clear()
        driver = OciDriver(rig.folder / "fresh", netns=f"/run/netns/{rig.netns}")
        asked = asyncio.ensure_future(driver.ensure_image(served.image, PullPolicy.ALWAYS))
        async with asyncio.timeout(20):
            await until(lambda: served.layers_asked > 0)
            await driver.close()
        with pytest.raises(ImageError):
            await asked


async def test_a_registry_that_sends_something_else_is_refused(rig: OciRig, driver: OciDriver) -> None:
    async with registry(rig.netns) as served:
        served.spoilt = True
        with pytest.raises(ImageError, match="cannot pull"):
            await driver.ensure_image(served.image, PullPolicy.ALWAYS)


async def test_devices_are_there_and_others_are_not(driver: OciDriver) -> None:
    container = await run(driver, shell("sleep 60", devices=("/dev/kmsg",), labels=SUITE))
    result: ExecResult = await driver.execute(container, ["stat", "-c", "%F", "/dev/kmsg"], timeout_s=10)
    assert result.output == b"character special file\n"
    made = await driver.execute(container, ["sh", "-c", "mknod /d b 254 0; dd if=/d of=/dev/null"], timeout_s=10)
    assert made.exit_code != 0
    assert stat.S_ISCHR(os.stat("/dev/kmsg").st_mode)


async def test_layers_go_with_their_last_image_and_stay_under_a_container_whose_tag_has_moved(
    rig: OciRig, driver: OciDriver
) -> None:
    def layers() -> set[str]:
        return {path.name for path in (rig.folder / "oci" / "images" / "layers").iterdir()}

    before = layers()
    async with registry(rig.netns) as served:
        served.pad(20)
        await driver.ensure_image(served.image, PullPolicy.ALWAYS)
        (old,) = layers() - before
        container = await run(driver, shell("sleep 60", image=served.image))
        served.pad(40)
        await driver.ensure_image(served.image, PullPolicy.ALWAYS)
        (new,) = layers() - before - {old}
        mine = {name for image in await driver.list_images() for name in image.names if served.address in name}
        (by_old_digest,) = mine - {name for one in await driver.list_images() if one.is_used for name in one.names}
        await driver.remove_image(by_old_digest)
        assert layers() - before == {old, new}
        await driver.remove(container)
        for name in mine - {by_old_digest}:
            await driver.remove_image(name)
        assert layers() == before
