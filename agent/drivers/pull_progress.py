"""How far a pull has come, in layers and bytes. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(slots=True)
class PullProgress:
    """Told by dockerd line by line. A layer that is there already counts as done, and its bytes not at all."""

    _done: set[str] = field(default_factory=set)
    _bytes: dict[str, tuple[int, int]] = field(default_factory=dict)  # by layer: of how many
    _layers: set[str] = field(default_factory=set)

    def take(self, line: Mapping[str, Any]) -> None:
        """Take in a line of the stream of `POST /images/create`."""
        layer, said = str(line.get("id", "")), str(line.get("status", ""))
        if not layer or said.startswith("Pulling from"):  # that one has the tag for an id
            return
        self._layers.add(layer)
        amounts = line.get("progressDetail") or {}
        if said == "Downloading" and amounts.get("total"):
            self._bytes[layer] = (int(amounts.get("current", 0)), int(amounts["total"]))
        elif said in ("Download complete", "Pull complete", "Already exists"):
            if layer in self._bytes:
                self._bytes[layer] = (self._bytes[layer][1],) * 2
            if said != "Download complete":
                self._done.add(layer)

    def sentence(self) -> str:
        """Return it in words; "" before anything is known.

        >>> progress = PullProgress()
        >>> progress.take({"id": "a1", "status": "Already exists"})
        >>> amounts = {"current": 1 << 20, "total": 5 << 20}
        >>> progress.take({"id": "b2", "status": "Downloading", "progressDetail": amounts})
        >>> progress.sentence()
        'pulling its image: 1 of 2 layers, 1 of 5 MiB'
        """
        if not self._layers:
            return ""
        done, total = (sum(amounts) for amounts in zip(*self._bytes.values(), strict=True)) if self._bytes else (0, 0)
        return pulling(f"{len(self._done)} of {len(self._layers)} layers", done, total)


def pulling(layers: str, done_bytes: int, total_bytes: int) -> str:
    """Return the sentence.

    >>> pulling("", 3 << 20, 0)
    'pulling its image: 3 MiB'
    """
    amount = f"{done_bytes >> 20} of {total_bytes >> 20} MiB" if total_bytes else f"{done_bytes >> 20} MiB"
    return "pulling its image: " + ", ".join(filter(None, (layers, amount if done_bytes or total_bytes else "")))
