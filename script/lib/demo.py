"""The demo behind `script/demo`: what a person would type, run for real, with what it shows."""

import argparse
import asyncio
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from agent.drivers.docker_api import DockerApi
from script.lib.engine import engine

ROOT = Path(__file__).resolve().parents[2]
WHERRY = str(Path(sys.executable).with_name("wherry"))
EXAMPLES = "manifests/examples"


class Demo:
    """One run: a cluster in a folder of its own."""

    def __init__(self, folder: Path, docker: Path, port: int) -> None:
        self.data_dir, self.docker, self.port = folder / "cluster", docker, port
        self.environment = {**os.environ, "WHERRY_DATA_DIR": str(self.data_dir)}

    def say(self, text: str) -> None:
        print(f"\n\033[1m# {text}\033[0m" if sys.stdout.isatty() else f"\n# {text}", flush=True)

    def run(self, *arguments: str) -> None:
        """Run a command of ours before the reader's eyes. Raises SystemExit if it fails."""
        print(f"$ wherry {' '.join(arguments)}", flush=True)
        done = subprocess.run([WHERRY, *arguments], env=self.environment, cwd=ROOT, check=False, timeout=180)
        if done.returncode != 0:
            raise SystemExit(f"demo: `wherry {' '.join(arguments)}` ended with {done.returncode}")

    def read(self, *arguments: str) -> list[dict[str, Any]]:
        """Return what a `wherry get` lists."""
        command = [WHERRY, *arguments, "-o", "json"]
        done = subprocess.run(command, env=self.environment, check=True, capture_output=True, timeout=30)
        return list(json.loads(done.stdout)["items"])

    def allocations(self, workload: str) -> list[dict[str, Any]]:
        wanted = [a for a in self.read("get", "allocations") if a["desired"] == "run"]
        return [a for a in wanted if a["name"] == workload]

    @contextmanager
    def cluster(self) -> Iterator["subprocess.Popen[bytes]"]:
        """Run `wherry dev` until the block ends."""
        command = [WHERRY, "dev", "--nodes", "3", "--data-dir", str(self.data_dir), "--port", str(self.port)]
        command += ["--docker", f"unix://{self.docker}"]
        print(f"$ wherry dev --nodes 3 --port {self.port}", flush=True)
        dev = subprocess.Popen(command, env=self.environment, cwd=ROOT, start_new_session=True)
        try:
            self.until("the three nodes are ready", lambda: self._are_ready(dev))
            yield dev
        finally:
            dev.send_signal(signal.SIGINT)
            try:
                dev.wait(timeout=60)
            except subprocess.TimeoutExpired:
                dev.kill()
                dev.wait()

    def _are_ready(self, dev: "subprocess.Popen[bytes]") -> bool:
        if dev.poll() is not None:
            raise SystemExit("demo: the cluster ended by itself")
        try:
            return [n["state"] for n in self.read("get", "nodes")] == ["ready"] * 3
        except subprocess.CalledProcessError:
            return False

    def until(self, what: str, holds: Callable[[], bool], deadline_s: float = 60) -> None:
        started = time.monotonic()
        while not holds():
            if time.monotonic() - started > deadline_s:
                raise SystemExit(f"demo: after {deadline_s:.0f} s it is still not so that {what}")
            time.sleep(0.2)
        print(f"-> {what}, after {time.monotonic() - started:.1f} s", flush=True)


def show(demo: Demo) -> None:
    demo.say("Everything in manifests/examples is applied; then we wait until all of it is healthy")
    demo.run("apply", "-f", EXAMPLES, "--wait")
    demo.say("Where everything is, and why")
    demo.run("get", "nodes")
    demo.run("get", "workloads")
    demo.run("get", "allocations", "-o", "wide")
    demo.run("describe", "service", "web")
    kill_a_container(demo)
    kill_a_node(demo)
    demo.say("What happened, in the cluster's own words")
    demo.run("get", "events")


def kill_a_container(demo: Demo) -> None:
    victim = demo.allocations("web")[0]
    demo.say(f"The container of {victim['id']} is killed behind Wherry's back")
    docker(demo, lambda api: api.kill(victim["containerId"], "SIGKILL"))

    def is_healed() -> bool:
        now = next(a for a in demo.allocations("web") if a["id"] == victim["id"])
        return bool(now["restarts"] > victim["restarts"] and now["health"] == "healthy")

    demo.until("it runs again on the same node, and its checks pass", is_healed)
    demo.run("describe", "allocation", victim["id"])


def kill_a_node(demo: Demo) -> None:
    node = demo.allocations("web")[0]["node"]
    there = {a["id"] for a in demo.allocations("web") if a["node"] == node}
    demo.say(f"Node {node} loses power: its agent and its containers are killed without a word")
    children = json.loads((demo.data_dir / "dev.json").read_text())["processes"]
    os.kill(children[node]["pid"], signal.SIGKILL)
    docker(demo, lambda api: kill_containers(api, node, demo))

    def is_moved() -> bool:
        web = demo.allocations("web")
        serving = [a for a in web if a["node"] != node and a["health"] == "healthy"]
        return len(serving) == len(web) == 3 and there.isdisjoint(a["id"] for a in web)

    demo.until(f"what ran on {node} runs elsewhere, and its checks pass", is_moved)
    demo.run("get", "nodes")
    demo.run("get", "allocations")


async def kill_containers(api: DockerApi, node: str, demo: Demo) -> None:
    cluster = demo.read("get", "allocations")[0]["containerId"]
    labels = (await api.inspect(cluster))["Config"]["Labels"]
    mine = {"wherry.node": node, "wherry.cluster": labels["wherry.cluster"]}
    for container in await api.list_ids(mine):
        if (await api.inspect(container))["State"]["Running"]:
            await api.kill(container, "SIGKILL")


def docker(demo: Demo, act: Callable[[DockerApi], Any]) -> None:
    async def with_api() -> None:
        api = DockerApi(str(demo.docker))
        try:
            await act(api)
        finally:
            await api.close()

    asyncio.run(with_api())


def main() -> int:
    parser = argparse.ArgumentParser(prog="script/demo", description=__doc__)
    parser.add_argument("--once", action="store_true", help="stop everything at the end, instead of leaving it running")
    parser.add_argument("--port", type=int, default=7400, help="where the server listens on this machine")
    options = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="wherry-demo-"))
    try:
        with engine(folder) as socket:
            demo = Demo(folder, socket, options.port)
            with demo.cluster() as dev:
                show(demo)
                if not options.once:
                    linger(demo, dev)
        print("\ndemo: everything is stopped and removed", flush=True)
    except KeyboardInterrupt:
        print("\ndemo: interrupted; everything is stopped and removed", flush=True)
        return 130
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return 0


def linger(demo: Demo, dev: "subprocess.Popen[bytes]") -> None:
    demo.say("The cluster stays until you press Ctrl-C. In another terminal, try:")
    print(f"  export WHERRY_DATA_DIR={demo.data_dir} PATH={Path(WHERRY).parent}:$PATH")
    for command in (
        "wherry get allocations --watch",
        "wherry logs service/web -f",
        "wherry scale service/web 6",
        "wherry describe service web",
        "wherry node drain n1 --wait",
        "wherry delete job digest",
    ):
        print(f"  {command}")
    token = demo.data_dir / "server" / "admin.token"
    print(f"  and open http://127.0.0.1:{demo.port}/ in a browser: it asks for the token in {token}", flush=True)
    dev.wait()


if __name__ == "__main__":
    sys.exit(main())
