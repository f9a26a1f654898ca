"""`wherry agent`: reads the flags of a node's agent and runs it."""

from argparse import ArgumentParser
from pathlib import Path

from wherry.cli.arguments import whole_number
from wherry.cli.commands.server import LOG_LEVELS

NOTES = """  wherry agent --server http://10.0.0.1:7400 --server http://10.0.0.2:7400 \\
    --join-token-file join.token --label disk=ssd

The join token is in the server's data folder. It can also be given in WHERRY_JOIN_TOKEN."""


def add_arguments(parser: ArgumentParser) -> None:
    data_dir, docker = "/var/lib/wherry/agent", "unix:///var/run/docker.sock"
    parser.add_argument("--server", action="append", default=[], metavar="URL", help="a server; may be repeated")
    parser.add_argument("--name", default="", help="the node's name (default: this host's)")
    parser.add_argument("--data-dir", type=Path, default=Path(data_dir), metavar="DIR", help=f"(default: {data_dir})")
    parser.add_argument("--docker", default=docker, metavar="URL", help=f"(default: {docker})")
    parser.add_argument("--join-token-file", metavar="FILE", help="what it presents to the servers")
    parser.add_argument("--cpu", metavar="CPU", help="what the node has (default: what this host has)")
    parser.add_argument("--memory", metavar="MEMORY", help="likewise")
    parser.add_argument("--pids", type=whole_number, metavar="N", help="likewise")
    parser.add_argument(
        "--publish-address", default="", metavar="IP", help="where published ports listen (default: all)"
    )
    parser.add_argument("--cgroup-parent", default="/wherry", metavar="PATH", help="(default: /wherry)")
    parser.add_argument("--label", action="append", default=[], metavar="K=V", help="a label; may be repeated")
    parser.add_argument("--ca-file", metavar="FILE", help="the CA that signed the servers' certificates")
    parser.add_argument("--start-concurrency", type=whole_number, metavar="N", help="containers started at a time")
    parser.add_argument("--log-level", choices=LOG_LEVELS, default="info")
