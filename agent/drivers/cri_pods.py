"""The pods of the cri driver: made once for each name, found again, and taken down with all that is in them."""

import errno
import socket
from collections.abc import Sequence
from contextlib import closing, suppress

from agent.driver import ContainerSpec, PublishedPort
from agent.drivers import cri_codec as codec
from agent.drivers.cri_channel import CriChannel
from agent.drivers.cri_methods import LIST_CONTAINERS, LIST_PODS, POD_STATUS, REMOVE_POD, RUN_POD, STATUS, STOP_POD
from agent.drivers.cri_stubs import cri_pb2 as pb
from foundation.clock import Clock
from foundation.grpc_method import Method, Request, Response
from manifests.errors import ConflictError, DriverError, NotFoundError, UnavailableError

SLOW_FACTOR = 6  # for what starts and ends pods: a network's plugins are programs, and many may start at once
MOST_ATTEMPTS = 4  # runtimes keep the name of a pod that failed to start
ADOPT_TRIES = 20
ADOPT_PAUSE_S = 0.1
FORSAKEN_S = 300.0  # a pod that got no container for so long gets none any more
DEFAULT_PARENTS = {False: "/wherry", True: "wherry.slice"}  # by whether systemd keeps the cgroups


class CriPods:
    """`log_root`: below it every pod has a folder for logs, which the runtime writes and the agent reads."""

    def __init__(self, channel: CriChannel, clock: Clock, *, log_root: str, cgroup_parent: str) -> None:
        self._channel, self._clock = channel, clock
        self._log_root, self._parent = log_root, cgroup_parent
        self.slow_s = SLOW_FACTOR * channel.timeout_s

    async def run(self, spec: ContainerSpec) -> tuple[str, pb.PodSandboxConfig, bool]:
        """Run the spec's pod, or find the one of its name; return its id, what it is, and whether it is new."""
        if not spec.host_network:
            await self._check_network(spec)
        parent = await self.cgroup_parent(spec)
        refused = await self._refused_port(spec)
        for attempt in range(MOST_ATTEMPTS):
            config = codec.to_pod(spec, attempt=attempt, log_root=self._log_root, cgroup_parent=parent, refused=refused)
            request = pb.RunPodSandboxRequest(config=config, runtime_handler=spec.runtime)
            try:
                what = f"run a pod for container {spec.name}"
                return (await self._call_slow(RUN_POD, request, what)).pod_sandbox_id, config, True
            except ConflictError:
                if (found := await self._awaited(spec.name)) is not None and not await self._removed_failed(found):
                    return found.id, config, False
            except DriverError:
                with suppress(DriverError, UnavailableError):  # the next create does it
                    for left in await self.listed({codec.POD_NAME: spec.name}):
                        await self._removed_failed(left)
                raise
        raise UnavailableError(
            f"cannot create container {spec.name} now",
            why="the runtime holds its name for pods that failed to start",
            fix="Try again; if it stays so, restart the runtime.",
        )

    async def joined(self, spec: ContainerSpec) -> tuple[str, pb.PodSandboxConfig]:
        """Return the holder that the spec names, as a container in it sees it. UnavailableError if it doesn't run."""
        of = str(spec.network_of)
        answer = await self.status(of)
        if answer is None or answer.status.state != pb.SANDBOX_READY:
            raise UnavailableError(
                f"cannot create container {spec.name} now",
                why=f"pod {of[:12]}, whose network it is to share, doesn't run",
                fix="The pod ended: it is made anew, and then this container.",
            )
        parent = await self.cgroup_parent(spec)
        return of, codec.to_joined_pod(answer.status, log_root=self._log_root, cgroup_parent=parent)

    async def status(self, pod: str) -> pb.PodSandboxStatusResponse | None:
        request = pb.PodSandboxStatusRequest(pod_sandbox_id=pod, verbose=True)
        try:
            return await self._channel.call(POD_STATUS, request, f"look at pod {pod[:12]}")
        except NotFoundError:
            return None

    async def listed(self, labels: dict[str, str]) -> Sequence[pb.PodSandbox]:
        request = pb.ListPodSandboxRequest(filter=pb.PodSandboxFilter(label_selector=labels))
        return (await self._channel.call(LIST_PODS, request, "list pods")).items

    async def containers(self, pod: str) -> Sequence[pb.Container]:
        request = pb.ListContainersRequest(filter=pb.ContainerFilter(pod_sandbox_id=pod))
        return (await self._channel.call(LIST_CONTAINERS, request, f"list the containers of pod {pod[:12]}")).containers

    async def stop(self, pod: str) -> None:
        with suppress(NotFoundError):
            await self._call_slow(STOP_POD, pb.PodSandboxId(pod_sandbox_id=pod), f"stop pod {pod[:12]}")

    async def remove(self, pod: str) -> None:
        """Remove it with its containers; fine if it is gone already."""
        await self.stop(pod)
        with suppress(NotFoundError):
            await self._call_slow(REMOVE_POD, pb.PodSandboxId(pod_sandbox_id=pod), f"remove pod {pod[:12]}")

    async def sweep(self) -> None:
        """Remove pods that an agent made and then died, before it made their containers."""
        pods = await self.listed({codec.POD_KIND: codec.SINGLE})
        before_s = self._clock.wall_s() - FORSAKEN_S
        if old := [pod.id for pod in pods if pod.created_at / 1e9 < before_s]:
            what = "list containers"
            listed = (await self._channel.call(LIST_CONTAINERS, pb.ListContainersRequest(), what)).containers
            for pod in set(old) - {container.pod_sandbox_id for container in listed}:
                await self.remove(pod)

    async def cgroup_parent(self, spec: ContainerSpec) -> str:
        """Return the spec's own; else the driver's, which without any depends on who keeps the cgroups."""
        if not spec.cgroup_parent and not self._parent:
            answer = await self._channel.call(STATUS, pb.StatusRequest(verbose=True), "ask for the runtime's settings")
            self._parent = DEFAULT_PARENTS[codec.runtimes_of(answer.info)[1]]
        return spec.cgroup_parent or self._parent

    async def _check_network(self, spec: ContainerSpec) -> None:
        """Raise DriverError without one: a pod that failed for want of it can't be removed either."""
        answer = await self._channel.call(STATUS, pb.StatusRequest(), "ask for the runtime's network")
        network = next((c for c in answer.status.conditions if c.type == codec.NETWORK_READY), None)
        if network is not None and not network.status:
            raise DriverError(
                f"cannot create container {spec.name}: this node has no container network",
                why=network.message,
                fix="Give the runtime a CNI configuration (in /etc/cni/net.d) and the plugins that it names, or let "
                "the workload use the host's network.",
            )

    async def _removed_failed(self, pod: pb.PodSandbox) -> bool:
        """Remove a pod that failed to start, which runtimes keep, and say so; one that holds anything stays."""
        if pod.state == pb.SANDBOX_READY or await self.containers(pod.id):
            return False
        await self.remove(pod.id)
        return True

    async def _awaited(self, name: str) -> pb.PodSandbox | None:
        """Return the pod of that name; the runtime holds a name before the pod can be seen."""
        for _ in range(ADOPT_TRIES):
            if found := await self.listed({codec.POD_NAME: name}):
                return found[0]
            await self._clock.sleep(ADOPT_PAUSE_S)
        return None

    async def _refused_port(self, spec: ContainerSpec) -> str:
        """Say which port can't be published, "" if all can: CNI would hand it to both, or to none, without a word."""
        if not spec.ports or spec.host_network:
            return ""
        others = [pod for pod in await self.listed({}) if pod.state == pb.SANDBOX_READY]
        held = [pod.annotations for pod in others if pod.labels.get(codec.POD_NAME) != spec.name]
        taken = codec.taken_port(spec.ports, held) or next((p for p in spec.ports if not _is_free(p)), None)
        if taken is None:
            return ""
        return f"Bind for {taken.host_address or '0.0.0.0'}:{taken.host_port} failed: port is already allocated"

    async def _call_slow(self, method: Method[Request, Response], request: Request, what: str) -> Response:
        return await self._channel.call(method, request, what, timeout_s=self.slow_s)


def _is_free(port: PublishedPort) -> bool:
    """Say whether no program of this host listens on the port: its clients would reach the container instead."""
    kind = socket.SOCK_STREAM if port.protocol == "tcp" else socket.SOCK_DGRAM
    family = socket.AF_INET6 if ":" in port.host_address else socket.AF_INET
    with closing(socket.socket(family, kind)) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((port.host_address, port.host_port))
        except OSError as error:
            return error.errno != errno.EADDRINUSE  # any other error says nothing of others
    return True
