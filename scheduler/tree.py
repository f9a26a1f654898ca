"""Candidates in heaps within heaps: the best one is at the top, and stays findable while the parts of groups change.

A level is something that nodes share: the value of a spread, or that they are avoided. Each branch of the tree is a
heap of its children, each with the best key found in it and the level's penalty for it. Within a leaf keys change only
for a node that gets an allocation itself, so leaves are always true. A branch's entries may promise too much, never too
little, since a value only gets more crowded: so the best one is found by looking again at the top until it keeps its
promise, and a replica costs about log(nodes).

Keys are whole numbers, and the lowest is the best.
"""

from collections.abc import Sequence
from heapq import heapify, heappop, heapreplace
from typing import Protocol, TypeAlias

import numpy as np

from scheduler.columns import Codes
from scheduler.nodes import Rows

_FEW_GROUPS = 64
_AT_ONCE = -(2**200)  # before all keys

Key: TypeAlias = int
Path: TypeAlias = tuple[int, ...]  # a code for each level


class Level(Protocol):
    """What the nodes of one group share, by a code."""

    codes: Codes  # of each candidate, in the candidates' order

    def penalty(self, code: int) -> Key:
        """Return what the group adds to the keys of its nodes. It only grows."""

    def is_closed(self, code: int) -> bool:
        """Say whether the group can take nothing for now."""


class Tree:
    """The candidates of one ask. Of n replicas, the next one's node is among the best n of one of the best n groups."""

    def __init__(self, levels: Sequence[Level], keys: Rows, most: int) -> None:
        """Take the key of each candidate; at most `most` of them will be asked for."""
        self._leaf = [] if levels else best_of(keys, most)
        self._root = _Branch(levels, _grouped(levels, keys, most), most) if levels and len(keys) else None

    def best(self) -> tuple[Key, Path] | None:
        """Return the key of the best candidate without its groups' penalties, and its path; None if there is none."""
        if self._root is not None:
            return None if self._root.refresh() is None else self._root.first()
        return (self._leaf[0], ()) if self._leaf else None

    def replace_best(self, key: Key | None) -> None:
        """Give the best one another key, or take it out."""
        if self._root is not None:
            self._root.replace_first(key)
        elif key is None:
            heappop(self._leaf)
        else:
            heapreplace(self._leaf, key)

    def reopen(self) -> None:
        """Look again at groups that were closed."""
        if self._root is not None:
            self._root.reopen()

    def top(self, most: int) -> list[Key]:
        """Return the first few keys with their groups' penalties. Of very many groups not all are looked at."""
        if self._root is not None:
            return self._root.top(most)
        return sorted(self._leaf[: 2**most - 1])[:most]


class _Branch:
    """A heap of (promise, code) over its children; a leaf is a heap of keys."""

    __slots__ = ("_children", "_closed", "_heap", "_level", "_rest")

    def __init__(self, levels: Sequence[Level], groups: dict[Path, list[Key]], most: int) -> None:
        self._level, self._rest = levels[0], levels[1:]
        self._closed: list[int] = []
        parted: dict[int, dict[Path, list[Key]]] = {}
        for path, keys in groups.items():
            parted.setdefault(path[0], {})[path[1:]] = keys
        self._children: dict[int, _Branch | list[Key]] = {
            code: _Branch(self._rest, within, most) if self._rest else within[()] for code, within in parted.items()
        }
        best = sorted((self._promise(code), code) for code in self._children)[:most]
        self._heap = best
        self._children = {code: self._children[code] for _, code in best}

    def refresh(self) -> Key | None:
        """Bring the top up to date and return its key with the penalty; None if nothing is left."""
        heap = self._heap
        while heap:
            seen, code = heap[0]
            if self._level.is_closed(code):
                self._closed.append(heappop(heap)[1])
                continue
            child = self._children[code]
            key = (child[0] if child else None) if isinstance(child, list) else child.refresh()
            if key is None:
                heappop(heap)
                if isinstance(child, list) or not child.is_waiting():
                    del self._children[code]
                else:
                    self._closed.append(code)
                continue
            fresh = key + self._level.penalty(code)
            if fresh == seen:
                return fresh
            heapreplace(heap, (fresh, code))
        return None

    def is_waiting(self) -> bool:
        """Say whether something in it is only closed for now."""
        return bool(self._closed)

    def first(self) -> tuple[Key, Path]:
        code = self._heap[0][1]
        child = self._children[code]
        if isinstance(child, list):
            return child[0], (code,)
        key, path = child.first()
        return key, (code, *path)

    def replace_first(self, key: Key | None) -> None:
        code = self._heap[0][1]
        child = self._children[code]
        if not isinstance(child, list):
            child.replace_first(key)
        elif key is None:
            heappop(child)
        else:
            heapreplace(child, key)
        heapreplace(self._heap, (self._promise(code), code))

    def reopen(self) -> None:
        for child in self._children.values():
            if not isinstance(child, list):
                child.reopen()
        self._closed.clear()
        self._heap = [(self._promise(code), code) for code in self._children]
        heapify(self._heap)

    def top(self, most: int) -> list[Key]:
        """In a heap, the first n are among the first 2**n - 1 entries."""
        near = 2**most - 1
        keys: list[Key] = []
        for _, code in self._heap[:near]:
            if not self._level.is_closed(code):
                child, penalty = self._children[code], self._level.penalty(code)
                keys += [key + penalty for key in (child[:near] if isinstance(child, list) else child.top(most))]
        keys.sort()
        return keys[:most]

    def _promise(self, code: int) -> Key:
        """Return a key that the child's best is not better than; nothing at all comes first, to be found out."""
        child = self._children[code]
        best = (child[0] if child else None) if isinstance(child, list) else child.promise()
        return _AT_ONCE if best is None else best + self._level.penalty(code)

    def promise(self) -> Key | None:
        return self._heap[0][0] if self._heap else None


def _grouped(levels: Sequence[Level], keys: Rows, most: int) -> dict[Path, list[Key]]:
    """Return the best keys of each group, sorted, by path."""
    sizes = [int(level.codes.max()) + 1 for level in levels]
    combined = np.zeros(len(keys), np.int64)
    for level, size in zip(levels, sizes, strict=True):
        combined = combined * size + level.codes
    return {_path(number, sizes): best for number, best in _by_group(keys, combined, most).items()}


def _by_group(keys: Rows, groups: Rows, most: int) -> dict[int, list[Key]]:
    if groups.max() < 4 * len(groups) and len(numbers := np.flatnonzero(np.bincount(groups))) <= _FEW_GROUPS:
        return {int(number): best_of(keys[groups == number], most) for number in numbers}
    order = np.lexsort((keys, groups))
    numbers, starts = np.unique(groups[order], return_index=True)
    ends = np.append(starts[1:], len(order))
    ordered = keys[order]
    return {
        number: ordered[start : min(end, start + most)].tolist()
        for number, start, end in zip(numbers.tolist(), starts.tolist(), ends.tolist(), strict=True)
    }


def best_of(keys: Rows, most: int) -> list[Key]:
    """Return the best keys, sorted."""
    if 2 * most < len(keys):
        keys = np.partition(keys, most)[:most]
    best: list[Key] = np.sort(keys).tolist()
    return best


def _path(number: int, sizes: Sequence[int]) -> Path:
    codes: list[int] = []
    for size in reversed(sizes):
        number, code = divmod(number, size)
        codes.append(code)
    return tuple(reversed(codes))
