"""The images of the cri driver: what is there, and pulls, one of an image at a time."""

import asyncio
from collections.abc import Set as AbstractSet

from agent.driver import SANDBOX_IMAGE, HeldImage, ImageError, ReadyImage
from agent.drivers.cri_channel import CriChannel
from agent.drivers.cri_methods import IMAGE_FS_INFO, IMAGE_STATUS, LIST_IMAGES, PULL, REMOVE_IMAGE
from agent.drivers.cri_stubs import cri_pb2 as pb
from agent.drivers.pull_words import pull_failure
from agent.drivers.pulls import Pulls
from agent.references import DOCKER_HUB, digest_of, normalized
from agent.registries import Registries
from manifests.containers import PullPolicy
from manifests.errors import ConflictError, DriverError, NotFoundError

REMOVE_S = 60.0
PULL_S = 1800.0  # the CRI tells nothing of progress; runtimes give up on a download that stands still by themselves

_HUB = "https://registry-1.docker.io"  # where containerd finds images of docker.io


class CriImages:
    def __init__(self, channel: CriChannel, registries: Registries) -> None:
        self._channel = channel
        self._registries = registries
        self._pulls = Pulls()

    async def ensure(self, image: str, policy: PullPolicy) -> ReadyImage:
        """Make the image ready. ALWAYS asks the registry, but for a digest, which can't have changed."""
        found = await self._find(image)
        if found is not None and (policy is not PullPolicy.ALWAYS or "@" in image):
            return ReadyImage(digest_of(image, found.repo_digests))
        if policy is PullPolicy.NEVER:
            raise ImageError(
                f"image {image} is not on this node",
                why="the policy `never` forbids to pull it",
                fix="Load it on the node (`ctr -n k8s.io images import`), or use the policy `ifMissing`.",
            )
        await self._pulls.once(image, self._pull)
        pulled = await self._find(image)
        if pulled is None:  # removed again by someone
            return ReadyImage()
        return ReadyImage(digest_of(image, pulled.repo_digests), found is None or found.id != pulled.id)

    async def held(self, used: AbstractSet[str]) -> list[HeldImage]:
        """Return the images that there are, but for those that the runtime needs; `used` are what containers name."""
        answer = await self._channel.call(LIST_IMAGES, pb.Empty(), "list images")
        held = []
        for image in answer.images:
            names = (*image.repo_tags, *image.repo_digests)
            if not image.pinned and normalized(SANDBOX_IMAGE) not in map(normalized, names):
                held.append(HeldImage(image.id, names, image.size, bool(used & {image.id, *names})))
        return held

    async def remove(self, name: str) -> None:
        request = pb.RemoveImageRequest(image=pb.ImageSpec(image=name))
        await self._channel.call(REMOVE_IMAGE, request, f"remove image {name}", timeout_s=REMOVE_S)

    async def folder(self) -> str:
        answer = await self._channel.call(IMAGE_FS_INFO, pb.Empty(), "ask where images are kept")
        return next((used.fs_id.mountpoint for used in answer.image_filesystems), "")

    async def _find(self, image: str) -> pb.Image | None:
        request = pb.ImageStatusRequest(image=pb.ImageSpec(image=image))
        answer = await self._channel.call(IMAGE_STATUS, request, f"look for image {image}")
        return answer.image if answer.HasField("image") else None

    async def _pull(self, image: str) -> None:
        access = await asyncio.to_thread(self._registries.access, image)
        request = pb.PullImageRequest(image=pb.ImageSpec(image=image))
        if access.username:
            # containerd gives them only to the host of this address: should the pull be led to another, not to that.
            address = _HUB if access.host == DOCKER_HUB else f"https://{access.host}"
            auth = pb.AuthConfig(username=access.username, password=access.password, server_address=address)
            request.auth.CopyFrom(auth)
        try:
            await self._channel.call(PULL, request, f"pull image {image}", timeout_s=PULL_S)
        except (NotFoundError, ConflictError, DriverError) as failed:
            raise pull_failure("cri", image, access, failed.why) from failed
