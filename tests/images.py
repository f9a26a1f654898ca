"""Images for tests, made on this machine: there is no registry."""

from functools import cache
from pathlib import Path

from agent.drivers.docker_api import DockerApi
from agent.drivers.local_image import BUSYBOX_IMAGE, busybox_image_tar

_archive = cache(busybox_image_tar)


async def load_busybox(socket: Path) -> str:
    """Give busybox to the dockerd behind the socket and return the image's name."""
    api = DockerApi(socket, timeout_s=30)
    try:
        await api.load(_archive(BUSYBOX_IMAGE))
    finally:
        await api.close()
    return BUSYBOX_IMAGE
