"""The switch between the hosts: a bridge in its own network namespace, with one port a host, where links are cut.

Cuts are made here, by dropping frames. A downed link would tell the host that its cable is out, and one downed inside
the host would lose its routes as well; a partition elsewhere in a network tells nothing. Port 0 is the test's own.
"""

from typing import TypeAlias

from tests.lab.commands import call, ip
from tests.lab.subnets import Subnet

# What is lost: frames that come in from one port and leave by another, where None is any port.
Drop: TypeAlias = tuple[int | None, int | None]
TEST_PORT = 0
TEST_HOST = 254  # the last byte of the test process's own address


class Switch:
    """The wiring of one lab. What is cut stays cut until it is healed, also while a host is off and comes back."""

    def __init__(self, lab_id: str, subnet: Subnet) -> None:
        self.netns = f"{lab_id}-switch"
        self.test_address = subnet.address(TEST_HOST)
        self._link = lab_id
        self._subnet = subnet
        self._drops: set[Drop] = set()

    def make(self) -> None:
        """Make the bridge, and give the test process an address on it."""
        call(["ip", "netns", "add", self.netns])
        ip("link set lo up", "link add br0 type bridge", "link set br0 up", netns=self.netns)
        ip(f"link add {self._link} type veth peer name {_port(TEST_PORT)} netns {self.netns}")
        ip(f"addr add {self.test_address}/24 dev {self._link}", f"link set {self._link} up")
        self._connect(TEST_PORT)

    def plug(self, port: int, netns: str, address: str) -> None:
        """Wire a new namespace to a port, with its address on `eth0`.

        The hardware address depends on the port alone, as a rebooted machine keeps its own: nobody's ARP goes stale.
        """
        mac = f"02:57:00:00:{self._subnet.number:02x}:{port:02x}"
        ip(
            f"link add {_port(port)} type veth peer name eth0 address {mac} netns {netns}",
            netns=self.netns,
        )
        ip("link set lo up", f"addr add {address}/24 dev eth0", "link set eth0 up", netns=netns)
        self._connect(port)

    def unplug(self, port: int) -> None:
        """Take the cable out for good, as a machine without power does: `eth0` is gone with the port."""
        ip(f"link del {_port(port)}", netns=self.netns)

    def cut(self, *drops: Drop) -> None:
        """Lose these frames from now on."""
        self._drops.update(drops)
        self._apply_drops()

    def mend(self, *drops: Drop) -> None:
        """Let these frames pass again."""
        self._drops.difference_update(drops)
        self._apply_drops()

    def heal_port(self, port: int) -> None:
        """Undo every cut in which that port has a part."""
        self._drops = {rule for rule in self._drops if port not in rule}
        self._apply_drops()

    def _connect(self, port: int) -> None:
        ip(f"link set {_port(port)} master br0", f"link set {_port(port)} up", netns=self.netns)

    def _apply_drops(self) -> None:
        """Replace all rules by the wanted ones in one transaction."""
        rules = "".join(f"    {_rule(*rule)}\n" for rule in sorted(self._drops, key=str))
        table = f"table bridge lab {{\n  chain cuts {{\n    type filter hook forward priority 0;\n{rules}  }}\n}}\n"
        call(
            ["nsenter", f"--net=/run/netns/{self.netns}", "nft", "-f", "-"],
            stdin=f"table bridge lab\ndelete table bridge lab\n{table}",
        )


def _port(number: int) -> str:
    return f"p{number}"


def _rule(source: int | None, target: int | None) -> str:
    matches = [f"iifname {_port(source)}"] if source is not None else []
    matches += [f"oifname {_port(target)}"] if target is not None else []
    return f"{' '.join(matches)} drop"
