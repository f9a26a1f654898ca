"""Pulls for the oci driver, by skopeo, into a folder in the layout of OCI images. Blocks.

Credentials go to skopeo in a file of their own, which names their one host, and which is gone when skopeo has ended.
"""

import base64
import hashlib
import json
import os
import shutil
import subprocess
import tempfile
from pathlib import Path

from agent.driver import ImageError
from agent.drivers.docker_codec import with_tag
from agent.drivers.pull_words import pull_failure
from agent.references import at_digest
from agent.registries import Access

PULL_TIMEOUT_S = 900.0
TAG = "image"  # in the layout that `pull` writes


class Skopeo:
    """The pulls of one driver."""

    def __init__(self) -> None:
        self._running: set[subprocess.Popen[bytes]] = set()

    def stop(self) -> None:
        """Have what is being pulled fail now."""
        for process in list(self._running):
            process.kill()

    def pull(self, reference: str, access: Access, folder: Path) -> str:
        """Copy the image into the folder, and return the digest that it has in its registry. Raises ImageError.

        The digest is that of all machines' images together, where there are several: the same on each node.
        """
        name = with_tag(reference)
        with tempfile.TemporaryDirectory(prefix="wherry-pull-") as private:  # of mode 0700
            options = _options(access, Path(private))
            if "@" in name:
                digest = name.partition("@")[2]
            else:
                manifest = self._run(reference, access, ["inspect", "--raw", *options, f"docker://{name}"])
                digest = f"sha256:{hashlib.sha256(manifest).hexdigest()}"
            source, target = f"docker://{at_digest(name, digest)}", f"oci:{folder}:{TAG}"
            given = [f"--src-{option.removeprefix('--')}" if option.startswith("--") else option for option in options]
            self._run(reference, access, ["copy", "--quiet", *given, source, target])
        return digest

    def _run(self, reference: str, access: Access, arguments: list[str]) -> bytes:
        """Return what skopeo writes to its standard output."""
        skopeo = shutil.which("skopeo")
        if skopeo is None:
            raise ImageError(
                f"cannot pull image {reference}",
                why="this node has no skopeo, by which the oci driver pulls",
                fix="Install it (Debian: `apt install skopeo`), or use an image in files (`oci:`, `dir:`, `host:`).",
            )
        with subprocess.Popen(
            [skopeo, *arguments], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        ) as process:
            self._running.add(process)
            try:
                out, error = process.communicate(timeout=PULL_TIMEOUT_S)
            except subprocess.TimeoutExpired:
                text = f"timeout: skopeo did not end within {PULL_TIMEOUT_S:g} s"
                raise pull_failure("oci", reference, access, text) from None
            finally:
                process.kill()
                self._running.discard(process)
        if process.returncode != 0:
            raise pull_failure("oci", reference, access, error.decode(errors="replace").strip())
        return out


def _options(access: Access, private: Path) -> list[str]:
    """Return the options of `skopeo inspect` for the registry; their files are written to the folder."""
    options = []
    if access.is_plain:
        options.append("--tls-verify=false")
    if access.ca_file:
        certificates = private / "certificates"
        certificates.mkdir()
        (certificates / "ca.crt").symlink_to(access.ca_file)
        options += ["--cert-dir", str(certificates)]
    if access.username:
        authfile = private / "auth.json"
        word = base64.b64encode(f"{access.username}:{access.password}".encode()).decode()
        descriptor = os.open(authfile, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with open(descriptor, "w") as file:
            json.dump({"auths": {access.host: {"auth": word}}}, file)
        options += ["--authfile", str(authfile)]
    return options
