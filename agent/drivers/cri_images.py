"""The images of the cri driver: what is there, and pulls, one of an image at a time."""

from agent.driver import ImageError
from agent.drivers.cri_channel import CriChannel
from agent.drivers.cri_methods import IMAGE_STATUS, PULL
from agent.drivers.cri_stubs import cri_pb2 as pb
from agent.drivers.docker_words import pull_failure
from agent.drivers.pulls import Pulls
from manifests.containers import PullPolicy
from manifests.errors import ConflictError, DriverError, NotFoundError

PULL_S = 1800.0  # the CRI tells nothing of progress; runtimes give up on a download that stands still by themselves


class CriImages:
    def __init__(self, channel: CriChannel) -> None:
        self._channel = channel
        self._pulls = Pulls()

    async def ensure(self, image: str, policy: PullPolicy) -> None:
        """Make the image ready. ALWAYS asks the registry, but for a digest, which can't have changed."""
        present = await self._has(image)
        if present and (policy is not PullPolicy.ALWAYS or "@" in image):
            return
        if policy is PullPolicy.NEVER:
            raise ImageError(
                f"image {image} is not on this node",
                why="the policy `never` forbids to pull it",
                fix="Load it on the node (`ctr -n k8s.io images import`), or use the policy `ifMissing`.",
            )
        await self._pulls.once(image, self._pull)

    async def _has(self, image: str) -> bool:
        request = pb.ImageStatusRequest(image=pb.ImageSpec(image=image))
        answer = await self._channel.call(IMAGE_STATUS, request, f"look for image {image}")
        return answer.HasField("image")

    async def _pull(self, image: str) -> None:
        request = pb.PullImageRequest(image=pb.ImageSpec(image=image))
        try:
            await self._channel.call(PULL, request, f"pull image {image}", timeout_s=PULL_S)
        except (NotFoundError, ConflictError, DriverError) as failed:
            raise pull_failure(image, failed.why) from failed
