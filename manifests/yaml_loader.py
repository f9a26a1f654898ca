"""Manifests from YAML files: every problem of every document at once, each with its file, line and field.

Called by the command line. The parts: yaml_text (bounds and trees), yaml_values (values), documents (the rules).
"""

import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from manifests.documents import invalid, read_document
from manifests.errors import InvalidError, NotFoundError
from manifests.problems import Fault, Problem
from manifests.workloads import Document, Workload
from manifests.yaml_faults import YamlFault
from manifests.yaml_text import MOST_BYTES, Node, decode, documents
from manifests.yaml_values import line_of, value_of

STDIN = "-"
_STDIN_NAME = "stdin"
_SUFFIXES = (".yaml", ".yml")


@dataclass(frozen=True, slots=True)
class Loaded:
    """A manifest and where it stands."""

    manifest: Document
    source: str
    line: int
    document: int = 0  # its number in the source, from 0

    @property
    def workload(self) -> Workload:
        """Return the manifest of a workload. Raises TypeError if it is of something else."""
        if not isinstance(self.manifest, Workload):
            raise TypeError(f"{self.where} is a {self.manifest.kind}")
        return self.manifest

    @property
    def where(self) -> str:
        return f"{self.source}:{self.line}"


def load_text(text: str, source: str) -> list[Loaded]:
    """Return the manifests of a text in order. Raises InvalidError with all its problems; `source` names it in them."""
    loaded, problems = _load(text, source)
    return _checked(loaded, problems, [source])


def load_files(paths: Sequence[str]) -> list[Loaded]:
    """Return the manifests of files, of the *.yaml and *.yml files of directories, and of standard input for "-".

    Raises InvalidError with all problems of all files, and NotFoundError for a path that doesn't exist.
    """
    sources = [file for path in paths for file in _files(path)]
    loaded: list[Loaded] = []
    problems: list[Problem] = []
    for source in sources:
        name = _STDIN_NAME if source == STDIN else source
        try:
            text = decode(_read(source))
        except YamlFault as fault:
            problems.append(Problem(0, "", fault.message, line=fault.line, source=name))
            continue
        found, wrong = _load(text, name)
        loaded += found
        problems += wrong
    return _checked(loaded, problems, [_STDIN_NAME if s == STDIN else s for s in sources])


def _files(path: str) -> list[str]:
    if path == STDIN:
        return [STDIN]
    if not Path(path).is_dir():
        return [path]
    files = sorted(str(f) for f in Path(path).iterdir() if f.suffix in _SUFFIXES and not f.is_dir())
    if not files:
        raise InvalidError(f"there are no manifests in {path}", why="it has no *.yaml or *.yml files")
    return files


def _read(source: str) -> bytes:
    """Return the bytes of a file, one more than allowed at most: what is too large need not be read to its end."""
    try:
        if source == STDIN:
            return sys.stdin.buffer.read(MOST_BYTES + 1)
        with open(source, "rb") as file:
            return file.read(MOST_BYTES + 1)
    except FileNotFoundError as error:
        raise NotFoundError(f"there is no file {source}") from error
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise InvalidError(f"cannot read {source}", why=reason or "") from error


def _load(text: str, source: str) -> tuple[list[Loaded], list[Problem]]:
    """Return what could be loaded, and all problems of the text."""
    loaded: list[Loaded] = []
    problems: list[Problem] = []
    number = -1
    try:
        for number, root in enumerate(documents(text)):
            read = _read_root(root)
            if isinstance(read, list):
                problems += _problems(read, root, number, source)
            else:
                loaded.append(Loaded(read, source, root.line, number))
    except YamlFault as fault:
        problems.append(Problem(number + 1, "", fault.message, line=fault.line, source=source))
    if number < 0 and not problems:
        problems.append(Problem(0, "", "is empty: a manifest begins with apiVersion: wherry/v1", source=source))
    return loaded, problems


def _read_root(root: Node) -> Document | list[Fault]:
    faults: list[Fault] = []
    value = value_of(root, faults)
    read = read_document(value)
    if not faults:
        return read
    # What couldn't be read has the value None, of which the rules needn't complain again.
    known = {fault.path for fault in faults}
    return faults + [f for f in (read if isinstance(read, list) else []) if f.path not in known]


def _problems(faults: list[Fault], root: Node, number: int, source: str) -> Iterator[Problem]:
    return (replace(f.problem(number), line=line_of(root, f.path, at_key=f.at_key), source=source) for f in faults)


def _checked(loaded: list[Loaded], problems: list[Problem], sources: Sequence[str]) -> list[Loaded]:
    problems = [*problems, *_duplicates(loaded)]
    if problems:
        order = {source: at for at, source in enumerate(sources)}
        problems.sort(key=lambda problem: (order[problem.source], problem.line))
        names = {problem.source for problem in problems}
        raise invalid(problems, names.pop() if len(names) == 1 else f"{len(names)} files")
    if not loaded:
        raise InvalidError("there is nothing to load", why=f"no manifest in {', '.join(sources) or 'no file'}")
    return loaded


def _duplicates(loaded: list[Loaded]) -> Iterator[Problem]:
    """Yield a problem for each document that describes what an earlier one describes already."""
    first: dict[tuple[str, str, str], Loaded] = {}
    for one in loaded:
        meta = one.manifest.metadata
        earlier = first.setdefault((one.manifest.kind, meta.namespace, meta.name), one)
        if earlier is not one:
            name = f"{one.manifest.kind.lower()} {meta.namespace}/{meta.name}"
            yield Problem(one.document, "metadata.name", f"{name} stands already at {earlier.where}: remove one",
                          line=one.line, source=one.source)  # fmt: skip
