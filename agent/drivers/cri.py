"""The cri driver: containers of containerd or CRI-O, in pods, through the CRI. See agent.driver for the promises.

A container has a pod of its own, which goes with it; one that shares a network has none, and lives in the pod that
holds it. That pod is the sandbox of a group: asked for by SANDBOX_IMAGE, it is told as a container with the pod's id.
"""

import asyncio
import math
import socket as sockets
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing, closing, suppress
from pathlib import Path

from agent.cgroups import is_v2
from agent.container_processes import kill_commands, limit_pids, open_process
from agent.driver import (
    SANDBOX_IMAGE,
    Container,
    ContainerId,
    ContainerSpec,
    ContainerState,
    DriverInfo,
    ExecResult,
    ImageError,
    LogChunk,
    PublishedPort,
    StartError,
)
from agent.drivers import cri_codec as codec
from agent.drivers.cri_channel import CriChannel
from agent.drivers.cri_events import CriEvents
from agent.drivers.cri_pods import CriPods
