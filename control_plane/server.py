"""`wherry server`: puts the store, the cache, the election, the sessions and the API together, and takes them down."""

import asyncio
import gc
import ipaddress
import os
import random
import resource
import signal
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import aiohttp
from aiohttp import web

from control_plane.api.context import Context
from control_plane.api.routes import make_app
from control_plane.bootstrap import ensure_cluster, ensure_token_file, register_token, write_client_file
from control_plane.changes import ChangeFeed
from control_plane.controllers.compactor import HistoryPromise
from control_plane.core import assemble
from control_plane.records import Role
from control_plane.rehearsal.rehearser import Rehearser
from control_plane.sessions import SessionRegistry
from control_plane.store.open import open_store
from control_plane.store.protocol import Store
from foundation.clock import Clock, SystemClock
from foundation.logs import Log, set_up_logs
from foundation.tasks import TaskGroup
from manifests.errors import InvalidError, UsageError

log = Log(__name__)

SHUTDOWN_TIMEOUT_S = 3.0


@dataclass(frozen=True, slots=True)
class ServerOptions:
    store: str  # sqlite:PATH or etcd:URL,URL
    host: str = "127.0.0.1"
    port: int = 7400
    data_dir: Path = Path("/var/lib/wherry/server")
    name: str = ""
    insecure: bool = False  # listen beyond loopback without TLS
    tls_cert: Path | None = None
    tls_key: Path | None = None
    admin_token_file: Path | None = None
    join_token_file: Path | None = None
    heartbeat_s: float = 1.0
    lost_after_s: float = 5.0
    keep_history_s: float = 3600.0  # of the store, at least
    keep_revisions: int = 10_000
    log_level: str = "info"

    @property
    def url(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{'https' if self.tls_cert else 'http'}://{host}:{self.port}"


async def run_server(options: ServerOptions) -> None:
    """Serve until SIGTERM or SIGINT, then hand everything over and end cleanly."""
    set_up_logs(level=options.log_level, daemon=f"server/{options.name}")
    _check(options)
    options.data_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
    _suit_process()
    clock = SystemClock()
    rng = random.SystemRandom()
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    async with TaskGroup() as tasks:
        serving = tasks.create_task(_open_and_serve(options, clock, rng), name="serve")
        await stop.wait()
        serving.cancel()
    log.info("server stopped", server=options.name)


async def _open_and_serve(options: ServerOptions, clock: Clock, rng: random.Random) -> None:
    store = await open_store(options.store, clock=clock, rng=rng)
    try:
        await serve(options, store, clock, rng)
    finally:
        await store.close()


async def serve(options: ServerOptions, store: Store, clock: Clock, rng: random.Random) -> None:
    """Run one server on an open store until cancelled; then send its agents elsewhere and give its lease up."""
    await ensure_cluster(store, clock, rng)
    admin_token = await _ensure_tokens(options, store, clock)
    core = assemble(
        store,
        clock,
        rng,
        name=options.name,
        url=options.url,
        heartbeat_s=options.heartbeat_s,
        lost_after_s=options.lost_after_s,
        promise=HistoryPromise(options.keep_history_s, options.keep_revisions),
    )
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=None, sock_connect=5)) as peers:
        context = Context(
            store=store,
            state=core.state,
            workload_writer=core.workload_writer,
            config_writer=core.config_writer,
            rollout_writer=core.rollout_writer,
            cron_runner=core.cron_runner,
            node_writer=core.node_writer,
            freeze_writer=core.freeze_writer,
            visit_writer=core.visit_writer,
            move_writer=core.move_writer,
            settings_writer=core.settings_writer,
            standing=core.standing,
            rehearser=Rehearser(store, core.state, core.standing, clock),
            changes=ChangeFeed(core.state, core.events),
            sessions=core.sessions,
            membership=core.membership,
            server=core.server,
            clock=clock,
            peers=peers,
        )
        async with core.running(), _listening(options, context):
            await _until_cancelled(options, core.registry, admin_token)


async def _ensure_tokens(options: ServerOptions, store: Store, clock: Clock) -> str:
    """Make this host's tokens known to the cluster, and return the admin token."""
    admin = ensure_token_file(options.admin_token_file or options.data_dir / "admin.token", Role.ADMIN)
    join = ensure_token_file(options.join_token_file or options.data_dir / "join.token", Role.NODE)
    await register_token(store, admin, Role.ADMIN, clock, name=options.name)
    await register_token(store, join, Role.NODE, clock, name=options.name)
    return admin


async def _until_cancelled(options: ServerOptions, registry: SessionRegistry, admin_token: str) -> None:
    ca_file = str(options.tls_cert) if options.tls_cert else None
    write_client_file(options.data_dir / "client.json", url=options.url, token=admin_token, ca_file=ca_file)
    log.info("server ready", server=options.name, url=options.url, store=options.store.split(":")[0])
    try:
        await asyncio.Event().wait()
    finally:
        await registry.close()


@asynccontextmanager
async def _listening(options: ServerOptions, context: Context) -> AsyncIterator[None]:
    """Keep the API's socket open for as long as the block runs. Raises UsageError if the address can't be had."""
    app = make_app(context)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=SHUTDOWN_TIMEOUT_S, handler_cancellation=True)
    await runner.setup()
    try:
        await _bind(runner, options)
        yield
    finally:
        await runner.cleanup()


async def _bind(runner: web.AppRunner, options: ServerOptions) -> None:
    try:
        await web.TCPSite(runner, options.host, options.port, ssl_context=_tls(options)).start()
    except OSError as error:
        raise UsageError(
            f"can't listen on {options.host}:{options.port}",
            why=os.strerror(error.errno) if error.errno else str(error),
            fix="Stop what listens there, or choose another port.",
        ) from error


def _tls(options: ServerOptions) -> ssl.SSLContext | None:
    if options.tls_cert is None:
        return None
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    try:
        context.load_cert_chain(options.tls_cert, options.tls_key)
    except OSError as error:
        raise InvalidError(f"the certificate {options.tls_cert} can't be used", why=str(error)) from error
    return context


def _suit_process() -> None:
    """Let the process hold thousands of sessions: each needs a file descriptor, and many systems grant 1,024 unasked.

    And the records of a large cluster live long: with Python's own thresholds the collector walks them over and over
    while the cluster grows, for a third of the time that it takes to hand out 2,000 replicas.
    """
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    gc.set_threshold(20_000, 20, 20)


def _check(options: ServerOptions) -> None:
    """Refuse to carry tokens over a network in the clear, unless told to."""
    if options.tls_cert is None and not options.insecure and not _is_loopback(options.host):
        raise UsageError(
            f"listening on {options.host} needs TLS",
            why="tokens and environment values would cross the network in the clear",
            fix="Give --tls-cert and --tls-key, or --insecure if you trust that network.",
        )


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
