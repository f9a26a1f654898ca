"""A container and its pod as a CRI runtime tells of them, each with the `crictl` command that shows it. Pure."""

from shlex import quote

from agent.driver import Container
from agent.drivers import cri_codec as codec
from agent.drivers.cri_stubs import cri_pb2 as pb
from manifests.layers import Fact, Layer, LayerKind


def container_layer(container: Container, answer: pb.ContainerStatusResponse, *, socket: str) -> Layer:
    crictl, status = _crictl(socket), answer.status
    show = f"{crictl} inspect {container.id}"
    pod = codec.pod_of(answer.info)
    facts = [
        Fact(name="id", value=container.id, command=show),
        Fact(name="pid", value=str(container.pid), note="its first process, on the host", command=show),
        Fact(name="logPath", value=status.log_path, note="what it writes, a line each", command=show),
    ]
    if pod:
        facts.append(Fact(name="sandboxID", value=pod, note="its pod", command=f"{crictl} inspectp {pod}"))
    image = Layer(kind=LayerKind.IMAGE, name=container.image, command=f"{crictl} inspecti {quote(container.image)}")
    return Layer(
        kind=LayerKind.CONTAINER,
        name=container.name,
        command=show,
        facts=tuple(f for f in facts if f.value),
        below=(image,),
    )


def holder_layer(container: Container, *, socket: str) -> Layer:
    """Return the pod that holds the network of a group."""
    show = f"{_crictl(socket)} inspectp {container.id}"
    facts = (
        Fact(name="id", value=container.id, command=show),
        Fact(name="pid", value=str(container.pid), note="its first process, on the host", command=show),
    )
    return Layer(kind=LayerKind.CONTAINER, name=container.name, command=show, facts=facts)


def _crictl(socket: str) -> str:
    return f"crictl -r {quote(f'unix://{socket}')}"
