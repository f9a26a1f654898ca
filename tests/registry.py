"""A registry of one image, for tests of pulls. It runs in the test's own loop, so that the test can hold it up."""

import asyncio
import ctypes
import hashlib
import io
import json
import os
import socket
import tarfile
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from aiohttp import web

from agent.drivers.local_image import busybox_image_tar, image_archive

_CLONE_NEWNET = 0x40000000
_MANIFEST_TYPE = "application/vnd.docker.distribution.manifest.v2+json"


class Registry:
    """Serves `{address}/busybox:1`, and no other tag. `open_blobs` holds up layers, `spoilt` sends wrong ones."""

    def __init__(self, port: int) -> None:
        self.address = f"127.0.0.1:{port}"
        self.open_blobs = asyncio.Event()
        self.open_blobs.set()
        self.spoilt = False
        self.layers_asked = 0
        self.layers_sent = 0
        self._serve(busybox_image_tar())

    def pad(self, blocks: int) -> None:
        """Serve another image under the tag from now on: the same files, with so many blocks after them."""
        layer = self._layer + bytes(512 * blocks)
        self._serve(image_archive("busybox:1", layer, {"Cmd": ["/bin/sh"], "Env": ["PATH=/bin"]}, created_by="test"))

    def _serve(self, image: bytes) -> None:
        with tarfile.open(fileobj=io.BytesIO(image)) as archive:
            entries = {entry.name: _content(archive, entry) for entry in archive}
        config = next(data for name, data in entries.items() if name.endswith(".json") and name != "manifest.json")
        self._layer = entries["layer.tar"]
        self._blobs = {_digest(data): data for data in (config, self._layer)}
        self._manifest = json.dumps(
            {
                "schemaVersion": 2,
                "mediaType": _MANIFEST_TYPE,
                "config": _described(config, "application/vnd.docker.container.image.v1+json"),
                "layers": [_described(self._layer, "application/vnd.docker.image.rootfs.diff.tar")],
            }
        ).encode()

    @property
    def image(self) -> str:
        return f"{self.address}/busybox:1"

    def app(self) -> web.Application:
        app = web.Application()
        app.router.add_get("/v2/", self._welcome)
        app.router.add_get("/v2/busybox/manifests/{reference}", self._serve_manifest)
        app.router.add_get("/v2/busybox/blobs/{digest}", self._serve_blob)
        return app

    async def _welcome(self, request: web.Request) -> web.Response:
        return web.json_response({})

    async def _serve_manifest(self, request: web.Request) -> web.Response:
        if request.match_info["reference"] not in ("1", _digest(self._manifest)):
            return web.json_response({"errors": [{"code": "MANIFEST_UNKNOWN", "message": "no such tag"}]}, status=404)
        headers = {"Docker-Content-Digest": _digest(self._manifest)}
        return web.Response(body=self._manifest, content_type=_MANIFEST_TYPE, headers=headers)

    async def _serve_blob(self, request: web.Request) -> web.Response:
        blob = self._blobs[request.match_info["digest"]]
        if blob is self._layer:
            self.layers_asked += 1
            await self.open_blobs.wait()
            self.layers_sent += 1
            blob = blob[::-1] if self.spoilt else blob
        return web.Response(body=io.BytesIO(blob))


@asynccontextmanager
async def registry(netns: str) -> AsyncIterator[Registry]:
    """Run a registry that listens on loopback in that network namespace, where a dockerd needs no TLS for it."""
    listener = await asyncio.to_thread(_listen_in, netns)
    served = Registry(listener.getsockname()[1])
    runner = web.AppRunner(served.app(), access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    try:
        await web.SockSite(runner, listener).start()
        yield served
    finally:
        served.open_blobs.set()
        await runner.cleanup()


def _listen_in(netns: str) -> socket.socket:
    """Return a listening socket of another network namespace: a socket stays in the one in which it was made."""
    made: list[socket.socket] = []

    def enter_and_listen() -> None:
        descriptor = os.open(f"/run/netns/{netns}", os.O_RDONLY)
        try:
            if ctypes.CDLL(None, use_errno=True).setns(descriptor, _CLONE_NEWNET):
                raise OSError(ctypes.get_errno(), "setns")
            made.append(socket.create_server(("127.0.0.1", 0)))
        finally:
            os.close(descriptor)

    thread = threading.Thread(target=enter_and_listen)  # which ends, and takes the namespace along
    thread.start()
    thread.join()
    return made[0]


def _content(archive: tarfile.TarFile, entry: tarfile.TarInfo) -> bytes:
    file = archive.extractfile(entry)
    assert file is not None
    return file.read()


def _described(data: bytes, media_type: str) -> dict[str, object]:
    return {"mediaType": media_type, "size": len(data), "digest": _digest(data)}


def _digest(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"
