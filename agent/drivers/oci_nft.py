"""The node's rules of nftables: what leaves its subnet is masqueraded, published ports lead to their containers.

One table for each agent, so that it can be written anew as a whole; ports are elements of two maps, which come and go
without the rules being touched. Blocks: for threads of agent.drivers.oci_workers.
"""

import re
import shutil
import threading
from collections.abc import Iterable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from ipaddress import IPv4Network

from agent.drivers.oci_workers import run_command
from manifests.errors import DriverError, UnavailableError


@dataclass(frozen=True, slots=True)
class Publication:
    """A port of an address of the host, "" for all of them, that leads to a container."""

    protocol: str  # tcp | udp
    host_address: str
    host_port: int
    address: str
    port: int


class Nft:
    """One table. Concurrent changes are put together: one run of `nft` takes all that came while the last one ran."""

    def __init__(self, table: str, bridge: str, subnet: IPv4Network) -> None:
        self._table, self._bridge, self._subnet = table, bridge, subnet
        self._lock = threading.Lock()  # of the list
        self._running = threading.Lock()
        self._waiting: list[tuple[list[str], Future[None]]] = []

    def write(self, publications: Iterable[Publication]) -> None:
        """Write the whole table, in one transaction, in place of the one that is there."""
        elements = [line for publication in publications for line in [self._element("add", publication)]]
        _run([f"add table ip {self._table}", f"delete table ip {self._table}", self._rules(), *elements])
        self._pass_forward()

    def remove(self) -> None:
        """Remove the table, and what lets our packets pass."""
        _run([f"add table ip {self._table}", f"delete table ip {self._table}"])
        code, text = run_command([_nft(), "--handle", "list", "chain", "ip", "filter", "FORWARD"])
        ours = re.findall(rf'"{self._bridge}".*# handle (\d+)', text) if code == 0 else []
        if ours:
            _run([f"delete rule ip filter FORWARD handle {handle}" for handle in ours])

    def publish(self, publications: Sequence[Publication]) -> None:
        self._change([self._element("add", publication) for publication in publications])

    def withdraw(self, publications: Sequence[Publication]) -> None:
        self._change([self._element("delete", publication) for publication in publications])

    def _change(self, lines: list[str]) -> None:
        if not lines:
            return
        done: Future[None] = Future()
        with self._lock:
            self._waiting.append((lines, done))
        with self._running:
            if not done.done():
                with self._lock:
                    batch, self._waiting = self._waiting, []
                self._run_batch(batch)
        done.result()

    def _run_batch(self, batch: list[tuple[list[str], "Future[None]"]]) -> None:
        """Run all changes together; should that fail, one by one, so that each has its own result."""
        try:
            _run([line for lines, _ in batch for line in lines])
        except DriverError as error:
            if len(batch) == 1:
                batch[0][1].set_exception(error)
                return
            for one in batch:
                self._run_batch([one])
        except BaseException as error:
            for _, done in batch:
                done.set_exception(error)
        else:
            for _, done in batch:
                done.set_result(None)

    def _element(self, verb: str, one: Publication) -> str:
        port, to = f"{one.protocol} . {one.host_port}", f"{one.address} . {one.port}"
        if one.host_address:
            return f"{verb} element ip {self._table} ports {{ {one.host_address} . {port} : {to} }}"
        return f"{verb} element ip {self._table} all_ports {{ {port} : {to} }}"

    def _rules(self) -> str:
        """Return the table. A port may be published on loopback: such packets go out by the bridge, masqueraded."""
        leads = (
            "dnat ip to ip daddr . meta l4proto . th dport map @ports; "
            "fib daddr type local dnat ip to meta l4proto . th dport map @all_ports;"
        )
        bridge, subnet = self._bridge, self._subnet
        return f"""table ip {self._table} {{
  map ports {{ type ipv4_addr . inet_proto . inet_service : ipv4_addr . inet_service; }}
  map all_ports {{ type inet_proto . inet_service : ipv4_addr . inet_service; }}
  chain loopback_is_local {{
    type filter hook prerouting priority raw;
    iifname "{bridge}" ip daddr 127.0.0.0/8 drop
  }}
  chain prerouting {{ type nat hook prerouting priority dstnat; {leads} }}
  chain output {{ type nat hook output priority -100; {leads} }}
  chain postrouting {{
    type nat hook postrouting priority srcnat;
    ip saddr {subnet} oifname != "{bridge}" masquerade
    ip saddr 127.0.0.0/8 oifname "{bridge}" masquerade
    ip saddr {subnet} oifname "{bridge}" ct status dnat masquerade
  }}
}}"""

    def _pass_forward(self) -> None:
        """Let our packets pass where dockerd, or a firewall, drops all that is forwarded unless told otherwise."""
        code, text = run_command([_nft(), "list", "chain", "ip", "filter", "FORWARD"])
        if code == 0 and "policy drop" in text and f'"{self._bridge}"' not in text:
            _run([f'insert rule ip filter FORWARD {way} "{self._bridge}" accept' for way in ("iifname", "oifname")])


def _run(lines: list[str]) -> None:
    code, text = run_command([_nft(), "-f", "-"], stdin="\n".join(lines).encode() + b"\n")
    if code != 0:
        raise DriverError(
            "cannot set up the containers' network",
            why=text[-1000:],
            fix="See nft's own words, and `nft list ruleset`.",
        )


def _nft() -> str:
    found = shutil.which("nft") or shutil.which("nft", path="/usr/sbin:/sbin")
    if found is None:
        raise UnavailableError(
            "cannot set up the containers' network",
            why="there is no `nft` on this node",
            fix="Install it (Debian: `apt install nftables`), or run the workload with `network: host`.",
        )
    return found
