"""The calls that the cri driver makes: path, request and answer. Names are facts of the protocols."""

from agent.drivers.cri_stubs import cri_pb2 as pb
from foundation.grpc_method import Method

_RUNTIME, _IMAGES = "/runtime.v1.RuntimeService", "/runtime.v1.ImageService"

VERSION = Method(f"{_RUNTIME}/Version", pb.VersionRequest, pb.VersionResponse)
STATUS = Method(f"{_RUNTIME}/Status", pb.StatusRequest, pb.StatusResponse)
RUN_POD = Method(f"{_RUNTIME}/RunPodSandbox", pb.RunPodSandboxRequest, pb.PodSandboxId)
STOP_POD = Method(f"{_RUNTIME}/StopPodSandbox", pb.PodSandboxId, pb.Empty)
REMOVE_POD = Method(f"{_RUNTIME}/RemovePodSandbox", pb.PodSandboxId, pb.Empty)
POD_STATUS = Method(f"{_RUNTIME}/PodSandboxStatus", pb.PodSandboxStatusRequest, pb.PodSandboxStatusResponse)
LIST_PODS = Method(f"{_RUNTIME}/ListPodSandbox", pb.ListPodSandboxRequest, pb.ListPodSandboxResponse)
CREATE = Method(f"{_RUNTIME}/CreateContainer", pb.CreateContainerRequest, pb.ContainerId)
START = Method(f"{_RUNTIME}/StartContainer", pb.ContainerId, pb.Empty)
STOP = Method(f"{_RUNTIME}/StopContainer", pb.StopContainerRequest, pb.Empty)
REMOVE = Method(f"{_RUNTIME}/RemoveContainer", pb.ContainerId, pb.Empty)
CONTAINER_STATUS = Method(f"{_RUNTIME}/ContainerStatus", pb.ContainerStatusRequest, pb.ContainerStatusResponse)
LIST_CONTAINERS = Method(f"{_RUNTIME}/ListContainers", pb.ListContainersRequest, pb.ListContainersResponse)
REOPEN_LOG = Method(f"{_RUNTIME}/ReopenContainerLog", pb.ContainerId, pb.Empty)
EXEC = Method(f"{_RUNTIME}/ExecSync", pb.ExecSyncRequest, pb.ExecSyncResponse)
EVENTS = Method(f"{_RUNTIME}/GetContainerEvents", pb.Empty, pb.ContainerEvent)

IMAGE_STATUS = Method(f"{_IMAGES}/ImageStatus", pb.ImageStatusRequest, pb.ImageStatusResponse)
PULL = Method(f"{_IMAGES}/PullImage", pb.PullImageRequest, pb.PullImageResponse)
LIST_IMAGES = Method(f"{_IMAGES}/ListImages", pb.Empty, pb.ListImagesResponse)
REMOVE_IMAGE = Method(f"{_IMAGES}/RemoveImage", pb.RemoveImageRequest, pb.Empty)
IMAGE_FS_INFO = Method(f"{_IMAGES}/ImageFsInfo", pb.Empty, pb.ImageFsInfoResponse)

CONTAINERD_EVENTS = Method("/containerd.services.events.v1.Events/Subscribe", pb.SubscribeRequest, pb.Envelope)
