"""`wherry dev`: a whole cluster on this machine, in one tree of real processes, until Ctrl-C."""

import fcntl
import json
import os
import shlex
import signal
import time
from argparse import ArgumentParser, Namespace
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from shutil import which
from types import FrameType

from manifests.errors import ConflictError, NotFoundError, TimedOutError, UnavailableError, UsageError, WherryError
from wherry.cli.arguments import whole_number
from wherry.cli.connection import CLIENT_FILE, Connection, dev_data_dir, read_client_file
from wherry.cli.dev_plan import MOST_NODES, Plan, check_port, child_env, settle_store, wherry_command
from wherry.cli.machine import Docker, parse_amounts, remove_cgroups, share, this_machine
from wherry.cli.oci_engine import OciEngine
from wherry.cli.processes import Family, end_processes, ending_of, processes_under
from wherry.cli.text import clean, plural, say
from wherry.cli.transport import Transport

READY_TIMEOUT_S = 60.0
STOP_TIMEOUT_S = 20.0
LOOK_EVERY_S = 0.2
NOTES = """  wherry dev --nodes 3 --store etcd

With the same --data-dir, the next `wherry dev` goes on with the same cluster."""


def add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("--nodes", type=whole_number, default=1, metavar="N", help="how many nodes (default: 1)")
    parser.add_argument(
        "--driver", choices=("docker", "oci"), help="what runs containers (default: docker where it answers, else oci)"
    )
    parser.add_argument(
        "--docker", default="unix:///var/run/docker.sock", metavar="URL", help="(default: unix:///var/run/docker.sock)"
    )
    parser.add_argument("--store", choices=("sqlite", "etcd"), help="what keeps the desired state (default: sqlite)")
    parser.add_argument("--etcd-endpoints", default="", metavar="URL,URL", help="an etcd that runs already")
    parser.add_argument("--data-dir", metavar="DIR", help="(default: ~/.local/share/wherry/dev)")
    parser.add_argument(
        "--port", type=whole_number, default=7400, help="the server's, 0 for a free one (default: 7400)"
    )
    parser.add_argument("--node-cpu", metavar="CPU", help="what each node has (default: its part of this machine)")
    parser.add_argument("--node-memory", metavar="MEMORY", help="what each node has")


def run(arguments: Namespace) -> int:
    if not 1 <= arguments.nodes <= MOST_NODES:
        raise UsageError(f"{arguments.nodes} nodes can't be had", fix=f"From 1 to {MOST_NODES}.")
    data_dir = Path(arguments.data_dir or dev_data_dir(os.environ)).expanduser().resolve()
    driver, engine = _engine(arguments, data_dir)
    has_cgroupfs = engine.cgroup_driver() == "cgroupfs"
    data_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
    with _locked(data_dir):
        end_processes(processes_under(data_dir), STOP_TIMEOUT_S)  # of a run that was killed
        plan = _plan(arguments, data_dir, has_cgroupfs=has_cgroupfs)._replace(driver=driver)
        return _Dev(plan, engine).run()


def _engine(arguments: Namespace, data_dir: Path) -> tuple[str, Docker | OciEngine]:
    """Return what runs containers: as the flag says, else as in the last run with this folder, else what there is."""
    docker, oci = Docker(arguments.docker), OciEngine(data_dir / "nodes")
    with suppress(OSError):
        arguments.driver = arguments.driver or (data_dir / "nodes" / "n1" / "driver").read_text().strip()
    if arguments.driver:
        return arguments.driver, oci if arguments.driver == "oci" else docker
    try:
        docker.cgroup_driver()
    except UnavailableError:
        if os.geteuid() != 0 or not (which("conmon") and (which("crun") or which("runc"))):
            raise
        return "oci", oci
    return "docker", docker


@contextmanager
def _locked(data_dir: Path) -> Iterator[None]:
    """Hold the folder for this process. Raises ConflictError if another one has it."""
    with open(data_dir / "dev.lock", "a+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            raise ConflictError(
                f"a cluster already runs in {data_dir}",
                why=f"process {clean(file.read()) or '?'} has it",
                fix="Use it, or stop it with Ctrl-C, or start another with --data-dir DIR --port 0.",
            ) from None
        file.truncate(0)
        file.write(str(os.getpid()))
        file.flush()
        yield


def _plan(arguments: Namespace, data_dir: Path, *, has_cgroupfs: bool) -> Plan:
    port = check_port(arguments.port)
    store, endpoints = settle_store(data_dir, arguments.store, arguments.etcd_endpoints)
    has_own_amounts = arguments.node_cpu and arguments.node_memory
    machine = this_machine()
    part = parse_amounts(
        arguments.node_cpu, arguments.node_memory, share(machine, 1 if has_own_amounts else arguments.nodes)
    )
    etcd_ports = (check_port(0), check_port(0)) if store == "etcd" and not endpoints else (0, 0)
    return Plan(data_dir, arguments.nodes, port, store, endpoints, etcd_ports, arguments.docker, has_cgroupfs, part)


class _Stopped(Exception):
    """Somebody asked to stop while the cluster was still starting."""


class _Dev:
    def __init__(self, plan: Plan, engine: Docker | OciEngine) -> None:
        self._plan, self._engine = plan, engine
        self._family = Family(plan.data_dir / "logs", child_env())
        self._cluster = ""  # its id, once the server has said it
        self._asked = 0  # how often to stop

    def run(self) -> int:
        """Start everything, watch it until asked to stop, and take it down again, whatever happens."""
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, self._on_signal)
        try:
            self._start()
            self._print_welcome()
            while not self._asked:
                self._watch_children()
                time.sleep(LOOK_EVERY_S)
        except _Stopped:
            pass
        finally:
            self._stop()
        return 0

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        self._asked += 1
        if self._asked > 1:
            self._family.kill()
            self._forget()
            say("Killed at once. Containers may be left: the next `wherry dev` with this folder takes them over.")
            os._exit(1)

    def _start(self) -> None:
        plan, family = self._plan, self._family
        say(f"Starting a server and {plural(plan.nodes, 'node')} in {plan.data_dir} ...")
        (plan.data_dir / CLIENT_FILE).unlink(missing_ok=True)
        (plan.server_dir / CLIENT_FILE).unlink(missing_ok=True)
        self._make_example_image()
        if plan.has_own_etcd:
            family.start("etcd", plan.etcd_command())
        family.start("server", plan.server_command())
        self._write_pids()
        connection = self._server_ready()
        self._cluster = str(Transport(connection).get("/v1/cluster")["cluster"])
        nodes = Transport(connection).get("/v1/nodes")["items"]
        before = {node["name"]: node["server"] for node in nodes}
        for name in plan.names:
            family.start(name, plan.agent_command(name))
        self._write_pids()
        self._nodes_ready(Transport(connection), before)
        self._write_client_file()

    def _make_example_image(self) -> None:
        """Give the engine the image of manifests/examples, if it lacks it: no registry has it."""
        from agent.drivers.local_image import BUSYBOX_IMAGE, busybox_image_tar

        try:
            was_made = self._engine.provide_image(BUSYBOX_IMAGE, busybox_image_tar)
        except NotFoundError as error:
            say(f"The examples' image {BUSYBOX_IMAGE} can't be made: {error.sentence()}")
        else:
            if was_made:
                say(f"Made the examples' image {BUSYBOX_IMAGE} from this machine's busybox.")

    def _server_ready(self) -> Connection:
        """Return how to reach the server, once it answers."""
        deadline = time.monotonic() + READY_TIMEOUT_S
        while True:
            connection = read_client_file(str(self._plan.server_dir / CLIENT_FILE))
            if connection is not None:
                with suppress(UnavailableError):
                    Transport(connection).get("/v1/health", timeout_s=2)
                    return connection
            self._pause(deadline, "the server")

    def _nodes_ready(self, transport: Transport, before: dict[str, str]) -> None:
        """Return when each node has a session with the new server; what an earlier run left may still read ready."""
        deadline = time.monotonic() + READY_TIMEOUT_S
        while True:
            missing = "the server"
            with suppress(UnavailableError):
                nodes = transport.get("/v1/nodes", timeout_s=5)["items"]
                up = {n["name"] for n in nodes if n.get("liveness") == "ready" and n["server"] != before.get(n["name"])}
                down = [name for name in self._plan.names if name not in up]
                if not down:
                    return
                missing = f"node {down[0]}"
            self._pause(deadline, missing)

    def _pause(self, deadline: float, what: str) -> None:
        """Wait a moment for a part to get ready. Raises if it can't any more, with the end of its log."""
        if self._asked:
            raise _Stopped
        for child in self._family.newly_dead():
            raise WherryError(
                f"{child.name} {ending_of(child)} while starting", why=f"its log ends with\n{child.last_lines()}"
            )
        if time.monotonic() > deadline:
            slow = self._family.children.get(what.split()[-1])
            log = f"its log ends with\n{slow.last_lines()}" if slow else ""
            raise TimedOutError(f"{what} was not ready within {READY_TIMEOUT_S:g} s", why=log)
        time.sleep(LOOK_EVERY_S / 2)

    def _watch_children(self) -> None:
        for child in self._family.children.values():
            for line in child.loud_lines():
                say(f"{child.name} | {clean(line)}")
        for child in self._family.newly_dead():
            what = "a dead agent is a lost node" if child.name in self._plan.names else f"{child.name} is gone"
            say(f"{child.name} {ending_of(child)}: {what}. Its log: {child.log}\nStart it again with:")
            say(f"  {shlex.join(_shown(child.command))}")

    def _print_welcome(self) -> None:
        plan = self._plan
        elsewhere = {key: value for key, value in os.environ.items() if key != "WHERRY_DATA_DIR"}
        is_default = plan.data_dir == Path(dev_data_dir(elsewhere)).resolve()
        wherry = shlex.join(_shown(wherry_command()))
        say(f"""
The cluster is ready: {plan.url}
  nodes   {", ".join(plan.names)}, each with {plan.part}
  store   {plan.store}
  driver  {plan.driver}
  folder  {plan.data_dir} (logs in logs/, process ids in dev.json)
  page    {plan.url}/ asks for the token in {plan.server_dir / "admin.token"}

Try, in another terminal:
{"" if is_default else f"  export WHERRY_DATA_DIR={shlex.quote(str(plan.data_dir))}" + chr(10)}\
  {wherry} get nodes
  {wherry} apply -f FILE --wait
  {wherry} describe node n1

Ctrl-C here stops everything, with the containers; the same folder goes on with the same cluster next time.""")

    def _write_pids(self) -> None:
        """Tell scripts which process is which."""
        children = self._family.children
        data = {
            "pid": os.getpid(),
            "server": self._plan.url,
            "processes": {name: {"pid": child.pid, "command": list(child.command)} for name, child in children.items()},
        }
        _write_private(self._plan.data_dir / "dev.json", json.dumps(data, indent=2) + "\n")

    def _write_client_file(self) -> None:
        _write_private(self._plan.data_dir / CLIENT_FILE, (self._plan.server_dir / CLIENT_FILE).read_text())

    def _stop(self) -> None:
        """End everything: server and agents first, so that nobody starts what is being stopped; then the containers."""
        say("Stopping ... (Ctrl-C again kills at once)")
        self._family.stop([name for name in self._family.children if name != "etcd"], STOP_TIMEOUT_S)
        by_hand = [p for p in processes_under(self._plan.data_dir) if p not in self._pids()]
        end_processes(by_hand, STOP_TIMEOUT_S)
        removed = self._engine.remove_containers(self._cluster) if self._cluster else 0
        self._family.stop(["etcd"], STOP_TIMEOUT_S)
        remove_cgroups(self._plan.cgroup_parent)
        self._forget()
        for child in self._family.children.values():
            child.close()
        say(f"Stopped; {plural(removed, 'container')} removed. {self._plan.data_dir} keeps the cluster's state.")

    def _pids(self) -> set[int]:
        return {child.pid for child in self._family.children.values()}

    def _forget(self) -> None:
        for name in (CLIENT_FILE, "dev.json"):
            (self._plan.data_dir / name).unlink(missing_ok=True)


def _shown(command: tuple[str, ...] | list[str]) -> list[str]:
    """Return a command as the user would type it."""
    if list(command[:3]) == wherry_command() and which("wherry"):
        return ["wherry", *command[3:]]
    return list(command)


def _write_private(path: Path, text: str) -> None:
    """Write a file for its owner's eyes, whole or not at all."""
    draft = path.with_suffix(".new")
    with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
        file.write(text)
    draft.replace(path)
