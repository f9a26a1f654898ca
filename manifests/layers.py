"""What an allocation is made of, layer below layer, each with the ordinary command that shows the same by hand.

A tree which a terminal can draw and a program can walk. The agent finds what is on its node, the server puts the
cluster's part on top. Nothing of it is stored.
"""

from enum import StrEnum

from manifests.base import Model


class LayerKind(StrEnum):
    MANIFEST = "manifest"
    VERSION = "version"
    ALLOCATION = "allocation"
    CONTAINER = "container"
    IMAGE = "image"
    BUNDLE = "bundle"
    RUNTIME = "runtime"
    SHIM = "shim"
    NAMESPACES = "namespaces"
    CGROUP = "cgroup"
    PROCESSES = "processes"
    PROCESS = "process"


class Fact(Model):
    """One thing that is so: its name is that which the system gives it, such as `memory.max`.

    What `command` prints on the node has `value` in it, white space aside; where `is_live`, as it was when it was read.
    """

    name: str
    value: str
    note: str = ""  # the same in words: 64Mi, of which 12% are used
    command: str = ""
    is_live: bool = False


class Layer(Model):
    """One layer, what is known of it, and what lies below it. `command` shows it as a whole."""

    kind: LayerKind
    name: str
    note: str = ""
    command: str = ""
    facts: tuple[Fact, ...] = ()
    below: tuple["Layer", ...] = ()
