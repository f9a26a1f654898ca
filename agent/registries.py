"""The node's own file of registries: who it is to each of them, and how it knows them. Read afresh at each pull.

    registries:
      registry.example.com:5000:
        username: ci
        passwordFile: /etc/wherry/ci.password
        caFile: /etc/wherry/example-ca.pem
      docker.io:
        credentialHelper: [docker-credential-pass, get]

What is said of one host is used for that host alone. Passwords are in nobody's log, state or store: they live in an
Access for the length of one pull. Methods block. A credential helper speaks Docker's protocol: the host comes on its
standard input, and it answers `{"Username": …, "Secret": …}` (github.com/docker/docker-credential-helpers).
"""

import ipaddress
import json
import os
import re
import stat
import subprocess
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Self

from pydantic import AfterValidator, Field, ValidationError, model_validator

from agent.driver import ImageError
from agent.references import DOCKER_HUB, host_of
from manifests.base import FieldError, Flag, Model, Text
from manifests.errors import InvalidError, WherryError
from manifests.problems import Fault, Problem, counted, faults_of, found, listing
from manifests.yaml_faults import YamlFault
from manifests.yaml_text import decode, documents
from manifests.yaml_values import line_of, value_of

DEFAULT_FILE = Path("/etc/wherry/registries.yaml")
HELPER_TIMEOUT_S = 20.0
_HUB_ADDRESS = "https://index.docker.io/v1/"  # what Docker calls its registry, where it keeps credentials
_MOST_SECRET_BYTES = 64 * 1024
_HOST = re.compile(r"(?:[a-z0-9](?:[-a-z0-9.]*[a-z0-9])?|\[[0-9a-f:]+\])(?::[0-9]{1,5})?")


@dataclass(frozen=True, slots=True)
class Access:
    """How to reach the registry of one image, and who to be there: no one, without a username."""

    host: str  # with its port, as images name it
    file: str = str(DEFAULT_FILE)  # where an operator says more of it
    username: str = ""
    password: str = field(default="", repr=False)
    ca_file: str = ""
    is_plain: bool = False  # HTTP without TLS, or TLS without a check

    @property
    def address(self) -> str:
        """Return what Docker's and the CRI's records of credentials call the registry."""
        return _HUB_ADDRESS if self.host == DOCKER_HUB else self.host


def is_loopback(host: str) -> bool:
    """Say whether the host, with or without a port, is this machine.

    >>> is_loopback("127.0.0.1:5000"), is_loopback("localhost"), is_loopback("[::1]:5000"), is_loopback("10.0.0.1:80")
    (True, True, True, False)
    """
    name = re.sub(r":[0-9]+$", "", host).strip("[]")
    try:
        return name == "localhost" or ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False


class Registries:
    """The file at `path`. If `is_optional`, none need be there."""

    def __init__(self, path: Path = DEFAULT_FILE, *, is_optional: bool = True) -> None:
        self._path = path
        self._is_optional = is_optional

    def check(self) -> None:
        """Raise InvalidError with all that is wrong with the file, if anything is."""
        self._read()

    def access(self, image: str) -> Access:
        """Return how to reach the image's registry. Raises ImageError for credentials that can't be read."""
        host = host_of(image)
        try:
            entry = self._read().get(host, _Entry())
            username, password = _credentials(host, entry)
        except WherryError as error:
            raise ImageError(f"cannot pull image {image}: {error.what}", why=error.why, fix=error.fix) from error
        ca_file = entry.ca_file or ""
        is_plain = is_loopback(host) and not ca_file if entry.plain_http is None else entry.plain_http
        return Access(host, str(self._path), username, password, ca_file, is_plain)

    def _read(self) -> "dict[str, _Entry]":
        try:
            data = _private(self._path)
        except FileNotFoundError as missing:
            if self._is_optional:
                return {}
            raise InvalidError(
                f"there is no file {self._path}", fix="Write it, or leave out --registries."
            ) from missing
        return _parsed(data, str(self._path))


def _checked_host(host: str) -> str:
    if not _HOST.fullmatch(host):
        raise ValueError(f"'{host[:80]}' is not a registry's host: write it as images do, such as r.example.com:5000")
    return host


def _checked_path(path: str) -> str:
    if not path.startswith("/"):
        raise ValueError(f"must be an absolute path; found {found(path)}")
    return path


_AbsolutePath = Annotated[Text, AfterValidator(_checked_path)]


class _Entry(Model):
    """What the file says of one host."""

    username: Text | None = None
    password_file: _AbsolutePath | None = None
    credential_helper: Annotated[tuple[Text, ...], Field(min_length=1)] | None = None
    ca_file: _AbsolutePath | None = None
    plain_http: Flag | None = None

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.credential_helper and (self.username or self.password_file):
            raise FieldError(("credentialHelper",), "tells both name and password: leave the others out")
        if self.username and not self.password_file:
            raise FieldError(("username",), "needs a passwordFile beside it")
        if self.password_file and not self.username:
            raise FieldError(("passwordFile",), "needs a username beside it")
        if self.plain_http and self.ca_file:
            raise FieldError(("plainHttp",), "makes no use of a caFile: leave one of the two out")
        return self


class _File(Model):
    registries: dict[Annotated[str, AfterValidator(_checked_host)], _Entry]


def _parsed(data: bytes, source: str) -> dict[str, _Entry]:
    """Return the entries by host. Raises InvalidError with each problem at its line."""
    problems: list[Problem] = []
    try:
        roots = list(documents(decode(data)))
    except YamlFault as broken:
        roots, problems = [], [Problem(0, "", broken.message, line=broken.line, source=source)]
    if not problems and len(roots) != 1:
        problems.append(Problem(0, "", f"must have one document; found {len(roots)}", source=source))
    if not problems:
        faults: list[Fault] = []
        value = value_of(roots[0], faults)
        try:
            file = _File.model_validate(value, by_name=False, by_alias=True)
        except ValidationError as error:
            known = {fault.path for fault in faults}
            faults += [fault for fault in faults_of(error, _File) if fault.path not in known]
        if not faults:
            return dict(file.registries)
        for fault in faults:
            line = line_of(roots[0], fault.path, at_key=fault.at_key)
            problems.append(Problem(0, fault.problem().path, fault.message, line=line, source=source))
    raise InvalidError(f"{counted(problems)} in {source}", why=listing(problems), problems=problems)


def _private(path: Path) -> bytes:
    """Return the content of a file that is secret, or names commands. Raises InvalidError if it is open to others."""
    try:
        with path.open("rb") as file:
            mode = stat.S_IMODE(os.fstat(file.fileno()).st_mode)
            if mode & stat.S_IRWXO:
                raise InvalidError(
                    f"{path} is open to others", why=f"its mode is {mode:04o}", fix=f"Run `chmod o= {path}`."
                )
            return file.read(_MOST_SECRET_BYTES)
    except FileNotFoundError:
        raise
    except OSError as error:
        raise InvalidError(f"cannot read {path}", why=error.strerror or str(error)) from error


def _credentials(host: str, entry: _Entry) -> tuple[str, str]:
    if entry.credential_helper:
        return _helped(host, entry.credential_helper)
    if not entry.username or not entry.password_file:
        return "", ""
    try:
        password = _private(Path(entry.password_file)).decode().removesuffix("\n").removesuffix("\r")
    except FileNotFoundError as missing:
        raise InvalidError(f"there is no password file {entry.password_file} for {host}") from missing
    except UnicodeDecodeError as error:
        raise InvalidError(f"the password file {entry.password_file} is not text in UTF-8") from error
    if not password:
        raise InvalidError(f"the password file {entry.password_file} for {host} is empty")
    return entry.username, password


def _helped(host: str, command: tuple[str, ...]) -> tuple[str, str]:
    """Return what the helper answers. What it writes is never shown: by mistake it may be the secret."""
    what = f"the credential helper {command[0]} gave none for {host}"
    fix = f"Run it by hand: `echo {Access(host).address} | {' '.join(command)}`."
    try:
        done = subprocess.run(
            command, input=Access(host).address.encode(), capture_output=True, timeout=HELPER_TIMEOUT_S, check=False
        )
        if done.returncode != 0:
            raise InvalidError(what, why=f"it ended with {done.returncode}", fix=fix)
        answer = json.loads(done.stdout)
        username, password = answer["Username"], answer["Secret"]
    except OSError as error:
        raise InvalidError(what, why=error.strerror or str(error), fix=fix) from error
    except subprocess.TimeoutExpired as late:
        raise InvalidError(what, why=f"it did not end within {HELPER_TIMEOUT_S:g} s", fix=fix) from late
    except (ValueError, KeyError, TypeError):  # its text is in such an error: not to be chained
        raise InvalidError(what, why="its answer is not of Docker's protocol", fix=fix) from None
    if not isinstance(username, str) or not isinstance(password, str) or username in ("", "<token>"):
        raise InvalidError(what, why="it answers with something else than a name and a password", fix=fix)
    return username, password
