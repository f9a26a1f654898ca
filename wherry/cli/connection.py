"""Where the cluster is and who the user is: from flags, the environment, or the file that a server leaves behind.

Order: `--server` and `--token-file`; WHERRY_SERVER, WHERRY_TOKEN, WHERRY_TOKEN_FILE, WHERRY_CA_FILE; then `client.json`
in $WHERRY_DATA_DIR, else of `wherry dev`, else of the server of this machine. A token from a `client.json` goes only
to the servers that the same file names: it must not leak to an address from a flag.
"""

import json
import os
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from manifests.errors import InvalidError, UsageError

CLIENT_FILE = "client.json"
SERVER_DATA_DIR = "/var/lib/wherry/server"


class Connection(NamedTuple):
    """Servers to try in turn, what to present to them, and where this was found, for error messages."""

    servers: tuple[str, ...]
    token: str
    ca_file: str | None
    source: str


def dev_data_dir(env: Mapping[str, str]) -> str:
    """Return where `wherry dev` keeps its cluster unless told otherwise."""
    given = env.get("WHERRY_DATA_DIR")
    share = env.get("XDG_DATA_HOME") or os.path.join(env.get("HOME") or os.path.expanduser("~"), ".local", "share")
    return given or os.path.join(share, "wherry", "dev")


def discover(
    servers: Sequence[str] = (), token_file: str | None = None, ca_file: str | None = None, *, env: Mapping[str, str]
) -> Connection:
    """Return the connection to use. Raises UsageError when nothing says where a cluster is."""
    found = _client_file(env)
    named = tuple(servers) or tuple(s.strip() for s in env.get("WHERRY_SERVER", "").split(",") if s.strip())
    source = "--server" if servers else "WHERRY_SERVER"
    if not named:
        if found is None:
            raise UsageError("no cluster is known here", why=_where_looked(env), fix=_HOW_TO_START)
        named, source = found.servers, found.source
    named = tuple(_checked_url(server) for server in named)
    token = _read_token(token_file) if token_file else _token_of(env)
    if not token and found and set(named) <= set(found.servers):
        token = found.token
    ca_file = ca_file or env.get("WHERRY_CA_FILE") or (found.ca_file if found else None)
    return Connection(named, token, ca_file, source)


def read_client_file(path: str) -> Connection | None:
    """Return what a `client.json` says; None if there is no such file, or it isn't this user's to read."""
    try:
        with open(path, encoding="utf-8") as file:
            data = json.load(file)
        servers = tuple(str(server).rstrip("/") for server in data["servers"])
        return Connection(servers, str(data.get("token") or ""), data.get("caFile"), path)
    except (FileNotFoundError, NotADirectoryError, PermissionError):
        return None
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise InvalidError(f"can't read {path}", why=f"it is not a client file ({error})", fix="Remove it.") from error


_HOW_TO_START = (
    "Start one on this machine with `wherry dev`, or name a server of yours with --server URL --token-file FILE\n"
    "(or WHERRY_SERVER and WHERRY_TOKEN)."
)


def _where_looked(env: Mapping[str, str]) -> str:
    folder = env.get("WHERRY_DATA_DIR")
    return f"there is no {CLIENT_FILE} in {folder}, which WHERRY_DATA_DIR names" if folder else ""


def _client_file(env: Mapping[str, str]) -> Connection | None:
    if env.get("WHERRY_DATA_DIR"):
        return read_client_file(os.path.join(env["WHERRY_DATA_DIR"], CLIENT_FILE))
    paths = (os.path.join(folder, CLIENT_FILE) for folder in (dev_data_dir(env), SERVER_DATA_DIR))
    return next((found for path in paths if (found := read_client_file(path))), None)


def _token_of(env: Mapping[str, str]) -> str:
    if token := env.get("WHERRY_TOKEN", "").strip():
        return token
    path = env.get("WHERRY_TOKEN_FILE")
    return _read_token(path) if path else ""


def _read_token(path: str) -> str:
    try:
        with open(path, encoding="utf-8") as file:
            token = file.read().strip()
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise UsageError(f"can't read the token file {path}", why=reason) from error
    if not token or not token.isascii() or any(c.isspace() for c in token):
        raise UsageError(f"the token file {path} holds no token", fix="It should hold one line, the token alone.")
    return token


def _checked_url(server: str) -> str:
    given = server.strip()
    scheme, _, rest = (given if "://" in given else f"http://{given}").partition("://")
    rest = rest.removesuffix("/")
    if scheme not in ("http", "https") or not rest or "/" in rest or any(c.isspace() for c in rest):
        raise UsageError(f"'{server}' is not a server's URL", fix="Write for example http://127.0.0.1:7400")
    return f"{scheme}://{rest}"
