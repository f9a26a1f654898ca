"""The network of a node's containers: one bridge, a pair of interfaces and an address for each, and published ports.

Who has which address and ports is written in each container's folder; there is no other record. Blocks: for threads of
agent.drivers.oci_workers.
"""

import errno
import fcntl
import hashlib
import json
import os
import socket
import struct
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path

from agent.driver import ContainerId, PublishedPort, StartError
from agent.drivers.oci_folder import ContainerFolder
from agent.drivers.oci_netlink import delete_link, make_bridge, plug_in
from agent.drivers.oci_nft import Nft, Publication
from manifests.errors import DriverError, UnavailableError

POOL = IPv4Network("10.212.0.0/14")
SUBNET_BITS = 22  # of 1,021 containers
_LOCK = Path("/run/wherry-oci-network.lock")


@dataclass(frozen=True, slots=True)
class Attachment:
    """What one container holds."""

    address: str
    ports: tuple[Publication, ...]


class Network:
    """`folder` is the node's own. Its subnet is chosen once, beside those that the host knows already."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        mark = hashlib.sha256(str(folder).encode()).hexdigest()[:8]
        self.bridge, self.table = f"wh-{mark}", f"wherry_{mark}"
        self._held: dict[ContainerId, Attachment] = {}
        self._lock = threading.Lock()
        self._nft: Nft | None = None
        self._subnet = POOL
        self._last = 0  # the address given last, so that one isn't given again at once

    def take_over(self, folders: Iterable[ContainerFolder]) -> None:
        """Go on with what an agent before this one gave to containers that run, and with nothing else of it."""
        for folder in folders:
            with suppress(OSError, ValueError, KeyError, TypeError):
                stored = json.loads(folder.network.read_text())
                ports = tuple(Publication(**port) for port in stored["ports"])
                self._held[folder.id] = Attachment(stored["address"], ports)
        if self._held:
            with self._lock:
                self._set_up()

    def attach(self, folder: ContainerFolder, pid: int) -> str:
        """Give the container of that process ports, and an address, which is returned. StartError if one is taken."""
        with self._lock:
            nft = self._set_up()
            held = self._held[folder.id] = self._choose(folder)
        folder.network.write_text(json.dumps(asdict(held)))
        address, gateway = IPv4Address(held.address), self._subnet[1]
        try:
            plug_in(_interface(folder.id), self.bridge, pid, address, self._subnet, gateway)
        except OSError as error:
            raise DriverError(
                f"cannot give container {folder.spec.name} a network",
                why=f"{error.strerror} (interface {_interface(folder.id)}, bridge {self.bridge})",
                fix="Look at `ip link` on the node.",
            ) from error
        nft.publish(held.ports)
        return held.address

    def withdraw(self, folder: ContainerFolder) -> None:
        """Take back what the container holds; fine if it holds nothing."""
        with self._lock:
            held = self._held.pop(folder.id, None)
        if held is not None and self._nft is not None:
            self._nft.withdraw(held.ports)
            delete_link(_interface(folder.id))  # it goes with the last process of its namespace, but that may take long
        folder.network.unlink(missing_ok=True)

    def tear_down(self) -> None:
        """Remove what containers shared. The next that needs a network has it made anew."""
        with self._lock, _host_lock():
            if self._nft is None and self.bridge not in {name for _, name in socket.if_nameindex()}:
                return
            Nft(self.table, self.bridge, self._subnet).remove()
            delete_link(self.bridge)
            self._nft = None

    def _choose(self, folder: ContainerFolder) -> Attachment:
        spec = folder.spec
        taken = {held.address for held in self._held.values()}
        count = self._subnet.num_addresses - 3  # not its own two, nor the bridge's
        for step in range(count):
            number = 2 + (self._last + step) % count
            if str(self._subnet[number]) not in taken:
                self._last = number - 1
                address = str(self._subnet[number])
                break
        else:
            raise UnavailableError(f"all {count} addresses of {self._subnet} are taken", fix="Use another node.")
        published = {(p.protocol, p.host_port): p.host_address for held in self._held.values() for p in held.ports}
        for port in spec.ports:
            at = published.get((port.protocol, port.host_port))
            if at is not None and (at == port.host_address or not at or not port.host_address):
                raise _taken(spec.name, port)
            _check_free(spec.name, port)
        ports = [Publication(p.protocol, p.host_address, p.host_port, address, p.container_port) for p in spec.ports]
        return Attachment(address, tuple(ports))

    def _set_up(self) -> Nft:
        """Make what all containers share, the first time."""
        if self._nft is None:
            with _host_lock():
                self._subnet = self._own_subnet()
                try:
                    make_bridge(self.bridge, self._subnet[1], self._subnet)
                    _set("net/ipv4/ip_forward")
                    _set(f"net/ipv4/conf/{self.bridge}/route_localnet")  # for ports that are published on loopback
                except OSError as error:
                    raise UnavailableError(
                        "cannot set up the containers' network",
                        why=f"{error} (bridge {self.bridge})",
                        fix="Run the agent as root, with CAP_NET_ADMIN.",
                    ) from error
            nft = Nft(self.table, self.bridge, self._subnet)
            nft.write(port for held in self._held.values() for port in held.ports)
            self._nft = nft
        return self._nft

    def _own_subnet(self) -> IPv4Network:
        """Return the subnet of this node: the one that it had, else one that the host doesn't know yet."""
        file = self._folder / "subnet"
        with suppress(OSError, ValueError):
            return IPv4Network(file.read_text().strip())
        known = list(_routes())
        subnets = list(POOL.subnets(new_prefix=SUBNET_BITS))
        start = int(self.table[-8:], 16) % len(subnets)  # neighbours of one machine look in different places first
        for subnet in (*subnets[start:], *subnets[:start]):
            if not any(subnet.overlaps(route) for route in known):
                file.write_text(f"{subnet}\n")
                return subnet
        raise UnavailableError(
            "cannot set up the containers' network",
            why=f"the host has routes to all of {POOL}",
            fix="Run workloads with `network: host` on this node.",
        )


def _interface(container: ContainerId) -> str:
    return f"wh{container[:12]}"


def _taken(name: str, port: PublishedPort) -> StartError:
    address = port.host_address or "any address"
    return StartError(
        f"cannot start container {name}: port {port.host_port} of {address} is taken on this node",
        why="something listens there already",
        fix="Publish another port, let Wherry choose one with `publish: auto`, or stop what holds the port "
        f"(`ss -lntup 'sport = :{port.host_port}'` names it).",
    )


def _check_free(name: str, port: PublishedPort) -> None:
    """Raise StartError if a process of the host listens there: it would be heard no more."""
    kind = socket.SOCK_DGRAM if port.protocol == "udp" else socket.SOCK_STREAM
    with socket.socket(socket.AF_INET, kind) as probe:
        if kind is socket.SOCK_STREAM:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((port.host_address, port.host_port))
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                raise _taken(name, port) from error
            raise StartError(
                f"cannot start container {name}: port {port.host_port} can't be published on {port.host_address}",
                why=error.strerror or str(error),
                fix="Check the address on which the node publishes (`ip address` lists what it has; IPv4 only).",
            ) from error


def _routes() -> Iterator[IPv4Network]:
    """Yield the networks to which the host has a route, but for the default. Source: proc(5), /proc/net/route."""
    for line in Path("/proc/thread-self/net/route").read_text().splitlines()[1:]:
        _, target, _, _, _, _, _, mask, *_ = line.split()
        address, bits = (struct.pack("=I", int(word, 16)) for word in (target, mask))
        network = IPv4Network((address, int.from_bytes(bits).bit_count()), strict=False)
        if network.prefixlen > 0:
            yield network


def _set(name: str) -> None:
    """Switch a setting of the kernel on, in this thread's network namespace."""
    file = Path("/proc/sys", name)
    if file.read_text().strip() != "1":
        file.write_text("1")


@contextmanager
def _host_lock() -> Iterator[None]:
    """Keep other agents of this host from choosing a subnet at the same time."""
    descriptor = os.open(_LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)
