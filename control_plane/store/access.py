"""How a client proves itself to a store, and the store to it. Free of grpc, so that anything may import it."""

from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Tls:
    """PEM files: the CA that signed the store's certificate, and the client's own certificate and key if it has any."""

    ca: Path
    certificate: Path | None = None
    key: Path | None = None


@dataclass(frozen=True, slots=True)
class Credentials:
    user: str
    password: str = field(repr=False)
