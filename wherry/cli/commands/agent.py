"""`wherry agent`: reads the flags of a node's agent and runs it."""

import os
from argparse import ArgumentParser, ArgumentTypeError, Namespace
from collections.abc import Sequence
from pathlib import Path

from manifests.errors import UsageError
from manifests.permissions import CAPABILITY, PERMISSION, is_capability
from wherry.cli.arguments import whole_number
from wherry.cli.commands.server import LOG_LEVELS

NOTES = """  wherry agent --server http://10.0.0.1:7400 --server http://10.0.0.2:7400 \\
    --join-token-file join.token --label disk=ssd

The join token is in the server's data folder. It can also be given in WHERRY_JOIN_TOKEN."""


def add_arguments(parser: ArgumentParser) -> None:
    data_dir, docker = "/var/lib/wherry/agent", "unix:///var/run/docker.sock"
    podman = "unix:///run/podman/podman.sock"
    parser.add_argument("--server", action="append", default=[], metavar="URL", help="a server; may be repeated")
    parser.add_argument("--name", default="", help="the node's name (default: this host's)")
    parser.add_argument("--data-dir", type=Path, default=Path(data_dir), metavar="DIR", help=f"(default: {data_dir})")
    parser.add_argument(
        "--driver",
        default="",
        metavar="NAME",
        help="docker, podman, cri or oci (default: the one it had, else the first of these that the node has)",
    )
    parser.add_argument("--docker", default=docker, metavar="URL", help=f"of driver docker (default: {docker})")
    parser.add_argument("--podman", default=podman, metavar="URL", help=f"of driver podman (default: {podman})")
    parser.add_argument("--cri", default="", metavar="URL", help="of driver cri (default: containerd's, else CRI-O's)")
    parser.add_argument("--oci-runtime", default="", metavar="NAME", help="of driver oci (default: crun, else runc)")
    parser.add_argument(
        "--image-dir",
        type=Path,
        action="append",
        default=[],
        metavar="DIR",
        help="where images of driver oci in files may lie; may be repeated (default: /var/lib/wherry/images)",
    )
    parser.add_argument(
        "--registries",
        type=Path,
        metavar="FILE",
        help="credentials and CAs of image registries (default: /etc/wherry/registries.yaml, if it is there)",
    )
    parser.add_argument(
        "--image-gc-high",
        type=_percent,
        default=85.0,
        metavar="PERCENT",
        help="remove images that nothing needs once their disk is so full (default: 85; 100: never)",
    )
    parser.add_argument(
        "--image-gc-low", type=_percent, default=75.0, metavar="PERCENT", help="until it is so full (default: 75)"
    )
    parser.add_argument(
        "--image-gc-age", default="14d", metavar="TIME", help="and any that was not needed for so long (default: 14d)"
    )
    parser.add_argument(
        "--image-gc-all", action="store_true", help="also images that this agent did not pull, when the disk is full"
    )
    parser.add_argument("--join-token-file", metavar="FILE", help="what it presents to the servers")
    parser.add_argument("--cpu", metavar="CPU", help="what may be reserved here (default: this host's, less a reserve)")
    parser.add_argument("--memory", metavar="MEMORY", help="likewise")
    parser.add_argument("--pids", type=whole_number, metavar="N", help="likewise")
    parser.add_argument("--disk", metavar="SIZE", help="likewise; it is counted and not enforced")
    parser.add_argument(
        "--cpu-overcommit", type=_ratio, default=1.0, metavar="X", help="reserve the cpu X times over (default: 1)"
    )
    parser.add_argument(
        "--device",
        action="append",
        default=[],
        metavar="KIND=PATH[,PATH]",
        help="devices that may be reserved one by one, such as gpu=/dev/nvidia0,/dev/nvidia1; may be repeated",
    )
    parser.add_argument(
        "--allow",
        action="append",
        default=[],
        metavar="WHAT",
        help="let manifests ask for it here: capability:NAME, seccomp:unconfined or new-privileges; may be repeated",
    )
    parser.add_argument(
        "--publish-address", default="", metavar="IP", help="where published ports listen (default: all)"
    )
    parser.add_argument("--cgroup-parent", metavar="PATH", help="(default: one of the agent's own)")
    parser.add_argument("--label", action="append", default=[], metavar="K=V", help="a label; may be repeated")
    parser.add_argument("--ca-file", metavar="FILE", help="the CA that signed the servers' certificates")
    parser.add_argument("--start-concurrency", type=whole_number, metavar="N", help="containers started at a time")
    parser.add_argument("--log-level", choices=LOG_LEVELS, default="info")


def run(arguments: Namespace) -> int:
    import asyncio
    import socket

    from agent.image_choice import ImagePolicy
    from agent.main import run_agent
    from agent.options import AgentOptions
    from foundation.logs import set_up_logs
    from manifests.quantities import parse_bytes, parse_cpu, parse_duration

    try:
        cpu_m = parse_cpu(arguments.cpu) if arguments.cpu else None
        memory_bytes = parse_bytes(arguments.memory) if arguments.memory else None
        disk_bytes = parse_bytes(arguments.disk) if arguments.disk else None
        unused_s = parse_duration(arguments.image_gc_age)
    except ValueError as error:
        raise UsageError(str(error)) from error
    if arguments.image_gc_low > arguments.image_gc_high:
        raise UsageError(
            "--image-gc-low is above --image-gc-high", fix="Give a lower one: until where to remove images."
        )
    image_policy = ImagePolicy(arguments.image_gc_high, arguments.image_gc_low, unused_s, arguments.image_gc_all)
    options = AgentOptions(
        servers=tuple(arguments.server or _servers_of(os.environ.get("WHERRY_SERVER", ""))),
        name=arguments.name or socket.gethostname().split(".")[0].lower(),
        data_dir=arguments.data_dir,
        driver=arguments.driver,
        docker_socket=_socket_of(arguments.docker, "a dockerd's", "/var/run/docker.sock"),
        podman_socket=_socket_of(arguments.podman, "Podman's", "/run/podman/podman.sock"),
        cri_socket=arguments.cri and _socket_of(arguments.cri, "a runtime's", "/run/containerd/containerd.sock"),
        oci_runtime=arguments.oci_runtime,
        image_dirs=tuple(arguments.image_dir) or (Path("/var/lib/wherry/images"),),
        registries_file=arguments.registries,
        image_policy=image_policy,
        token=os.environ.get("WHERRY_JOIN_TOKEN", "").strip(),
        token_file=Path(arguments.join_token_file) if arguments.join_token_file else None,
        cpu_m=cpu_m,
        memory_bytes=memory_bytes,
        pids=arguments.pids,
        disk_bytes=disk_bytes,
        cpu_overcommit=arguments.cpu_overcommit,
        devices=devices_of(arguments.device),
        allow=allowed_of(arguments.allow),
        publish_address=arguments.publish_address,
        cgroup_parent=arguments.cgroup_parent,
        labels=labels_of(arguments.label),
        ca_file=Path(arguments.ca_file) if arguments.ca_file else None,
        start_concurrency=arguments.start_concurrency,
        log_level=arguments.log_level,
    )
    set_up_logs(level=options.log_level, daemon=f"agent/{options.name}")
    asyncio.run(run_agent(options))
    return 0


def _socket_of(url: str, whose: str, example: str) -> str:
    scheme, _, path = url.partition("://")
    if scheme != "unix" or not path:
        raise UsageError(f"'{url}' is not {whose} socket", fix=f"Write unix://{example}")
    return path


def _percent(text: str) -> float:
    """Return the number, from 1 to 100."""
    try:
        percent = float(text.removesuffix("%"))
    except ValueError:
        percent = 0.0
    if not 1.0 <= percent <= 100.0:
        raise ArgumentTypeError(f"'{text}' is not a number of percent from 1 to 100")
    return percent


def _ratio(text: str) -> float:
    """Return the number, from 1 to 16."""
    try:
        ratio = float(text)
    except ValueError:
        ratio = 0.0
    if not 1.0 <= ratio <= 16.0:
        raise ArgumentTypeError(f"'{text}' is not a ratio from 1 to 16")
    return ratio


def devices_of(words: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """Return the paths by kind of `KIND=PATH,PATH` words.

    >>> devices_of(["gpu=/dev/a,/dev/b"])
    {'gpu': ('/dev/a', '/dev/b')}
    """
    devices: dict[str, tuple[str, ...]] = {}
    for word in words:
        kind, _, listed = word.partition("=")
        paths = tuple(filter(None, listed.split(",")))
        if not kind or not paths or not all(path.startswith("/dev/") for path in paths):
            raise UsageError(f"'{word}' names no devices", fix="Write KIND=/dev/PATH[,/dev/PATH]")
        devices[kind] = (*devices.get(kind, ()), *paths)
    return devices


def allowed_of(words: Sequence[str]) -> frozenset[str]:
    """Return the permissions. Raises UsageError for one that is none: a typo must not seem to allow something."""
    for word in words:
        if not PERMISSION.fullmatch(word) or (word.startswith(CAPABILITY) and not is_capability(word)):
            fix = "Write capability:NAME (such as capability:NET_ADMIN), seccomp:unconfined or new-privileges."
            raise UsageError(f"'{word}' is nothing that a node can allow", fix=fix)
    return frozenset(words)


def labels_of(words: Sequence[str]) -> dict[str, str]:
    """Return the labels of `K=V` words.

    >>> labels_of(["disk=ssd", "zone=a"])
    {'disk': 'ssd', 'zone': 'a'}
    """
    labels = {}
    for word in words:
        key, equals, value = word.partition("=")
        if not equals or not key:
            raise UsageError(f"'{word}' is not a label", fix="Write for example --label disk=ssd")
        labels[key] = value
    return labels


def _servers_of(text: str) -> list[str]:
    return [server.strip() for server in text.split(",") if server.strip()]
