"""References of images: which registry and repository they mean, and the same by digest. Pure.

Source: the grammar and the defaults of github.com/distribution/reference.
"""

import re
from collections.abc import Iterable

DOCKER_HUB = "docker.io"
_DIGEST = re.compile(r"[a-z0-9]+:[0-9a-f]{32,128}")


def host_of(image: str) -> str:
    """Return the registry that a reference means: its first part, if that looks like a host.

    >>> host_of("nginx:1"), host_of("team/web"), host_of("localhost/web"), host_of("r.example:5000/a/b@sha256:0")
    ('docker.io', 'docker.io', 'localhost', 'r.example:5000')
    """
    first, slash, _ = image.partition("/")
    if not slash or not ("." in first or ":" in first or first == "localhost"):
        return DOCKER_HUB
    return DOCKER_HUB if first == "index.docker.io" else first


def repository_of(image: str) -> str:
    """Return the reference without its tag or digest.

    >>> repository_of("r.example:5000/web:1"), repository_of("nginx@sha256:0"), repository_of("r.example:5000/web")
    ('r.example:5000/web', 'nginx', 'r.example:5000/web')
    """
    name = image.partition("@")[0]
    head, colon, tag = name.rpartition(":")
    return head if colon and "/" not in tag else name


def at_digest(image: str, digest: str) -> str:
    """Return the reference by digest; the tag goes, since it may mean something else by now.

    >>> at_digest("r.example/web:1", "sha256:0a")
    'r.example/web@sha256:0a'
    """
    return f"{repository_of(image)}@{digest}"


def digest_of(image: str, known: Iterable[str]) -> str:
    """Return the digest of a reference among those by digest that a manager knows for its image; "" if none fits.

    >>> digest_of("web:1", ["r.example/web@sha256:" + 64 * "0", "docker.io/library/web@sha256:" + 64 * "1"])[-4:]
    '1111'
    """
    if "@" in image:
        return image.partition("@")[2]
    wanted = _whole(repository_of(image))
    found = (one.partition("@")[2] for one in sorted(known) if _whole(repository_of(one)) == wanted)
    return next((digest for digest in found if _DIGEST.fullmatch(digest)), "")


def normalized(image: str) -> str:
    """Return the reference with all that it leaves out, so that equal ones are the same text.

    >>> normalized("nginx"), normalized("docker.io/library/nginx:latest"), normalized("r.example/web@sha256:0")
    ('docker.io/library/nginx:latest', 'docker.io/library/nginx:latest', 'r.example/web@sha256:0')
    """
    repository = repository_of(image)
    end = image.removeprefix(repository)
    return f"{_whole(repository)}{'@' + end.partition('@')[2] if '@' in end else end or ':latest'}"


def _whole(repository: str) -> str:
    """Return the repository with what it leaves out."""
    host = host_of(repository)
    path = repository.removeprefix(f"{host}/").removeprefix("index.docker.io/")
    return f"{host}/library/{path}" if host == DOCKER_HUB and "/" not in path else f"{host}/{path}"
