"""The images of the cri driver: what is there, and pulls, one of an image at a time."""

import asyncio

from agent.driver import ImageError
from agent.drivers.cri_channel import CriChannel
from agent.drivers.cri_methods import IMAGE_STATUS, PULL
from agent.drivers.cri_stubs import cri_pb2 as pb
from agent.drivers.pull_words import pull_failure
from agent.drivers.pulls import Pulls
from agent.references import DOCKER_HUB, digest_of
from agent.registries import Registries
from manifests.containers import PullPolicy
from manifests.errors import ConflictError, DriverError, NotFoundError

PULL_S = 1800.0  # the CRI tells nothing of progress; runtimes give up on a download that stands still by themselves

_HUB = "https://registry-1.docker.io"  # where containerd finds images of docker.io


class CriImages:
    def __init__(self, channel: CriChannel, registries: Registries) -> None:
        self._channel = channel
        self._registries = registries
        self._pulls = Pulls()

    async def ensure(self, image: str, policy: PullPolicy) -> str:
        """Make the image ready. ALWAYS asks the registry, but for a digest, which can't have changed."""
        found = await self._find(image)
        if found is not None and (policy is not PullPolicy.ALWAYS or "@" in image):
            return digest_of(image, found.repo_digests)
        if policy is PullPolicy.NEVER:
            raise ImageError(
                f"image {image} is not on this node",
                why="the policy `never` forbids to pull it",
                fix="Load it on the node (`ctr -n k8s.io images import`), or use the policy `ifMissing`.",
            )
        await self._pulls.once(image, self._pull)
        pulled = await self._find(image)
        return digest_of(image, pulled.repo_digests if pulled is not None else ())

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
