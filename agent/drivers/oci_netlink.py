"""The few requests of rtnetlink(7) that give a container its network: a bridge, veth pairs, addresses, a route.

By the kernel's own messages, because each `ip` command would cost several milliseconds and a start needs five of them.
Blocks for some microseconds. Acts in the network namespace of the thread that calls. Raises OSError.
"""

import os
import socket
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from ipaddress import IPv4Address, IPv4Network

from agent.drivers.oci_workers import enter_network

_HEADER, _ATTRIBUTE = struct.Struct("=IHHII"), struct.Struct("=HH")
_LINK, _ADDRESS, _ROUTE = struct.Struct("=BxHiII"), struct.Struct("=BBBBI"), struct.Struct("=BBBBBBBBI")
_ERROR, _NEW_LINK, _DELETE_LINK, _NEW_ADDRESS, _NEW_ROUTE = 2, 16, 17, 20, 24
_REQUEST, _ACK, _EXCL, _CREATE = 0x1, 0x4, 0x200, 0x400
_UP = 1
_IFLA_IFNAME, _IFLA_MASTER, _IFLA_LINKINFO, _IFLA_NET_NS_PID = 3, 10, 18, 19
_INFO_KIND, _INFO_DATA, _VETH_PEER = 1, 2, 1
_IFA_ADDRESS, _IFA_LOCAL, _IFA_BROADCAST = 1, 2, 4
_RTA_OIF, _RTA_GATEWAY = 4, 5
_MAIN_TABLE, _BOOT_PROTOCOL, _UNICAST = 254, 3, 1
_TIMEOUT_S = 5.0
INSIDE = "eth0"


def make_bridge(name: str, gateway: IPv4Address, subnet: IPv4Network) -> None:
    """Make the bridge with its address, and set it up; fine if it is there."""
    with _Netlink() as netlink:
        info = _attribute(_IFLA_LINKINFO, _attribute(_INFO_KIND, b"bridge"))
        netlink.ask(_NEW_LINK, _link() + _name(name) + info, _CREATE | _EXCL, fine=FileExistsError)
        index = socket.if_nametoindex(name)
        netlink.ask(_NEW_ADDRESS, _address(index, gateway, subnet), _CREATE | _EXCL, fine=FileExistsError)
        netlink.ask(_NEW_LINK, _link(index, up=True))


def delete_link(name: str) -> None:
    """Delete an interface; fine if it is gone."""
    with _Netlink() as netlink:
        netlink.ask(_DELETE_LINK, _link() + _name(name), fine=OSError)


def plug_in(name: str, bridge: str, pid: int, address: IPv4Address, subnet: IPv4Network, gateway: IPv4Address) -> None:
    """Join the network namespace of process `pid` to the bridge by a pair of interfaces: `name` here, eth0 there."""
    peer = _link() + _name(INSIDE) + _attribute(_IFLA_NET_NS_PID, struct.pack("=I", pid))
    kind = _attribute(_INFO_KIND, b"veth") + _attribute(_INFO_DATA, _attribute(_VETH_PEER, peer))
    master = _attribute(_IFLA_MASTER, struct.pack("=I", socket.if_nametoindex(bridge)))
    with _Netlink() as here:
        here.ask(_NEW_LINK, _link(up=True) + _name(name) + master + _attribute(_IFLA_LINKINFO, kind), _CREATE | _EXCL)
    with _inside(pid), _Netlink() as there:
        index = socket.if_nametoindex(INSIDE)
        there.ask(_NEW_LINK, _link(socket.if_nametoindex("lo"), up=True))
        there.ask(_NEW_ADDRESS, _address(index, address, subnet), _CREATE | _EXCL)
        there.ask(_NEW_LINK, _link(index, up=True))
        route = _ROUTE.pack(socket.AF_INET, 0, 0, 0, _MAIN_TABLE, _BOOT_PROTOCOL, 0, _UNICAST, 0)
        by = _attribute(_RTA_GATEWAY, gateway.packed) + _attribute(_RTA_OIF, struct.pack("=I", index))
        there.ask(_NEW_ROUTE, route + by, _CREATE | _EXCL)


@contextmanager
def _inside(pid: int) -> Iterator[None]:
    """Move this thread to the process's network namespace for the block."""
    own = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    try:
        enter_network(f"/proc/{pid}/ns/net")
        yield
    finally:
        try:
            enter_network(f"/proc/thread-self/fd/{own}")
        finally:
            os.close(own)


class _Netlink:
    """One socket, in the namespace in which it was made."""

    def __enter__(self) -> "_Netlink":
        self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, socket.NETLINK_ROUTE)
        self._socket.settimeout(_TIMEOUT_S)
        self._sequence = 0
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()

    def ask(self, kind: int, body: bytes, flags: int = 0, *, fine: type[OSError] | None = None) -> None:
        """Send one request and wait for the kernel's answer; an error of the kind `fine` is none."""
        self._sequence += 1
        size = _HEADER.size + len(body)
        self._socket.send(_HEADER.pack(size, kind, flags | _REQUEST | _ACK, self._sequence, 0) + body)
        answer = self._socket.recv(65536)
        _, told, _, _, _ = _HEADER.unpack_from(answer)
        (number,) = struct.unpack_from("=i", answer, _HEADER.size)
        if told == _ERROR and number != 0:
            error = OSError(-number, os.strerror(-number))
            if fine is None or not isinstance(error, fine):
                raise error


def _attribute(kind: int, data: bytes) -> bytes:
    size = _ATTRIBUTE.size + len(data)
    return _ATTRIBUTE.pack(size, kind) + data + b"\0" * (-size % 4)


def _name(name: str) -> bytes:
    return _attribute(_IFLA_IFNAME, name.encode() + b"\0")


def _link(index: int = 0, *, up: bool = False) -> bytes:
    return _LINK.pack(socket.AF_UNSPEC, 0, index, _UP if up else 0, _UP if up else 0)


def _address(index: int, address: IPv4Address, subnet: IPv4Network) -> bytes:
    return (
        _ADDRESS.pack(socket.AF_INET, subnet.prefixlen, 0, 0, index)
        + _attribute(_IFA_LOCAL, address.packed)
        + _attribute(_IFA_ADDRESS, address.packed)
        + _attribute(_IFA_BROADCAST, subnet.broadcast_address.packed)
    )
