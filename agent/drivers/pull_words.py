"""What went wrong with a pull, by the words of dockerd, containerd and skopeo, and what to do. Pure.

They pass on the same library's texts. A miss costs clarity only: the text itself is always told.
"""

import re

from agent.driver import ImageError
from agent.registries import Access

# What each manager reads to trust a registry's certificate, and to speak plain HTTP to it.
_TRUST = {
    "docker": "dockerd must know its CA: write it to /etc/docker/certs.d/{host}/ca.crt.",
    "cri": "The runtime must know its CA: in containerd's certs.d/{host}/hosts.toml, as `ca`.",
    "oci": "Name its CA in {file}, as `caFile` of {host}.",
}
_PLAIN = {
    "docker": "Give it TLS, or name it in dockerd's `insecure-registries`.",
    "cri": 'Give it TLS, or write `server = "http://{host}"` into containerd\'s certs.d/{host}/hosts.toml.',
    "oci": "Give it TLS, or write `plainHttp: true` for {host} in {file}.",
}
_OTHER = "See the manager's own words above."
# Tried in this order: a text about a certificate also names an address that can't be reached.
_RULES = (
    ("trust", r"x509|certificate signed by|certificate is|tls: |unknown authority"),
    ("plain", r"HTTP response to HTTPS"),
    ("auth", r"no basic auth credentials|unauthorized|authentication required|denied|\b401\b|\b403\b"),
    ("missing", r"manifest unknown|not found|does not exist|name unknown|\b404\b"),
    ("full", r"no space left"),
    ("reference", r"invalid reference|invalid repository|repository name must"),
    ("away", r"no such host|refused|time ?out|i/o|unreachable|deadline|dial tcp|lookup|no route|EOF|reset by peer"),
)


def pull_failure(driver: str, image: str, access: Access, text: str) -> ImageError:
    """Return the error for an image that a driver's manager couldn't pull, with its text as the reason."""
    kind = next((kind for kind, pattern in _RULES if re.search(pattern, text, re.IGNORECASE)), "")
    host, file = access.host, access.file
    match kind:
        case "trust":
            said, fix = f"this node doesn't trust the certificate of {host}", _TRUST[driver]
        case "plain":
            said, fix = f"{host} speaks HTTP without TLS", _PLAIN[driver]
        case "auth" if access.username:
            said = f"{host} refused {access.username} with the password that this node has"
            fix = "Renew the password that {file} names for {host}, or have its owner allow this image."
        case "auth":
            said = f"{host} wants credentials, and this node has none for it"
            fix = "Check the name: a public image needs none. Else write them into {file} on this node."
        case "missing":
            said, fix = f"{host} has no such image", "Check the repository and the tag."
        case "full":
            said, fix = "the node's disk is full", "Make room, for example by removing images that nothing uses."
        case "reference":
            said, fix = "it is no image's name", "Write host/name:tag or host/name@sha256:digest, in lower case."
        case "away":
            said = f"{host} can't be reached from this node"
            fix = "Check the registry, and this node's network, DNS and proxy."
        case _:
            said, fix = "", _OTHER
    what = f"cannot pull image {image}"
    return ImageError(f"{what}: {said}" if said else what, why=text, fix=fix.format(host=host, file=file))
