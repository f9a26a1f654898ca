"""`wherry server`: reads the flags of a control-plane server and runs it."""

from argparse import ArgumentParser, Namespace
from pathlib import Path

from manifests.errors import UsageError
from wherry.cli.arguments import duration, whole_number

LOG_LEVELS = ("debug", "info", "warning", "error")
LEAST_HISTORY_S = 60.0
NOTES = """  wherry server --store etcd:http://10.0.0.1:2379,http://10.0.0.2:2379 \\
    --listen 10.0.0.1:7400 --tls-cert cert.pem --tls-key key.pem

The folder of --data-dir holds admin.token and join.token, made at the first start: users present the one, agents the
other. It also holds client.json, with which `wherry` on this machine finds the server by itself."""


def add_arguments(parser: ArgumentParser) -> None:
    data_dir = "/var/lib/wherry/server"
    parser.add_argument(
        "--store", metavar="URL", help="sqlite:PATH or etcd:URL,URL (default: sqlite in the data folder)"
    )
    parser.add_argument("--listen", default="127.0.0.1:7400", metavar="ADDRESS:PORT", help="(default: 127.0.0.1:7400)")
    parser.add_argument("--data-dir", type=Path, default=Path(data_dir), metavar="DIR", help=f"(default: {data_dir})")
    parser.add_argument("--name", default="", help="the server's name (default: this host's)")
    parser.add_argument("--insecure", action="store_true", help="listen beyond loopback without TLS")
    parser.add_argument("--tls-cert", type=Path, metavar="FILE")
    parser.add_argument("--tls-key", type=Path, metavar="FILE")
    parser.add_argument("--admin-token-file", type=Path, metavar="FILE", help="what users present")
    parser.add_argument("--join-token-file", type=Path, metavar="FILE", help="what agents present")
    parser.add_argument("--heartbeat", type=duration, default=1.0, metavar="TIME", help="of each agent (default: 1s)")
    parser.add_argument(
        "--lost-after", type=duration, default=5.0, metavar="TIME", help="of silence, a node is lost (default: 5s)"
    )
    parser.add_argument(
        "--keep-history", type=duration, default=3600.0, metavar="TIME", help="of the store, at least (default: 1h)"
    )
    parser.add_argument(
        "--keep-revisions",
        type=whole_number,
        default=10_000,
        metavar="N",
        help="of the store, at least (default: 10000)",
    )
    parser.add_argument("--log-level", choices=LOG_LEVELS, default="info")


def run(arguments: Namespace) -> int:
    import asyncio
    import socket

    from control_plane.server import ServerOptions, run_server

    host, port = address(arguments.listen)
    if bool(arguments.tls_cert) != bool(arguments.tls_key):
        raise UsageError("--tls-cert and --tls-key go together", fix="Give both, or none.")
    if arguments.lost_after < 2 * arguments.heartbeat:
        raise UsageError(
            "--lost-after must be at least twice --heartbeat", why="one late heartbeat is no reason to act"
        )
    if arguments.keep_history < LEAST_HISTORY_S:
        raise UsageError(
            f"--keep-history must be at least {LEAST_HISTORY_S:.0f}s",
            why="servers that are behind for a moment would have to read everything anew",
        )
    options = ServerOptions(
        store=arguments.store or f"sqlite:{arguments.data_dir / 'store.db'}",
        host=host,
        port=port,
        data_dir=arguments.data_dir,
        name=arguments.name or socket.gethostname(),
        insecure=arguments.insecure,
        tls_cert=arguments.tls_cert,
        tls_key=arguments.tls_key,
        admin_token_file=arguments.admin_token_file,
        join_token_file=arguments.join_token_file,
        heartbeat_s=arguments.heartbeat,
        lost_after_s=arguments.lost_after,
        keep_history_s=arguments.keep_history,
        keep_revisions=arguments.keep_revisions,
        log_level=arguments.log_level,
    )
    asyncio.run(run_server(options))
    return 0


def address(text: str) -> tuple[str, int]:
    """Return host and port of `ADDRESS:PORT`, with an IPv6 address in brackets.

    >>> address("[::1]:7400")
    ('::1', 7400)
    """
    host, colon, port = text.rpartition(":")
    bare = host[1:-1] if host.startswith("[") and host.endswith("]") else host
    is_whole = colon and bare and (":" not in bare or bare != host)
    if not is_whole or not port.isdigit() or not 0 < int(port) < 65536:
        raise UsageError(f"'{text}' is not ADDRESS:PORT", fix="Write for example 127.0.0.1:7400 or [::1]:7400.")
    return bare, int(port)
