"""A real registry for a test: apt's docker-registry, with TLS of a CA of its own, and names and passwords.

    authority = Authority(tmp_path)
    with private_registry(tmp_path, netns, authority) as served:
        served.push("busybox:1")

It listens in the network namespace, not on a loopback address: there, managers do without TLS.
"""

import io
import shutil
import subprocess
import tarfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from agent.drivers.local_image import busybox_image_tar, image_archive
from tests.daemons import until

ADDRESS = "10.77.0.1"
USER, PASSWORD = "ci", "pass word"
_READY_S = 20.0
_COMMAND_S = 60.0
_CONFIG = """
version: 0.1
log: {{level: warn}}
storage: {{filesystem: {{rootdirectory: {folder}/data}}, delete: {{enabled: true}}}}
http: {{addr: "{host}", tls: {{certificate: {folder}/server.pem, key: {folder}/server.key}}}}
auth: {{htpasswd: {{realm: test, path: {folder}/users}}}}
"""


def is_installed() -> bool:
    return all(map(shutil.which, ("docker-registry", "htpasswd", "openssl", "skopeo")))


class Authority:
    """A CA, and the certificate that it gave to ADDRESS. `file` is its certificate."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "registry"
        self.folder.mkdir()
        self.file = self.folder / "ca.pem"
        made = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2")
        ca_key, key, request, certificate = (self.folder / n for n in ("ca.key", "server.key", "request", "server.pem"))
        _run("openssl", "req", "-x509", *made, "-keyout", ca_key, "-out", self.file, "-subj", "/CN=test CA")
        _run("openssl", "req", *made[:-2], "-keyout", key, "-out", request, "-subj", "/CN=registry")
        extension = self.folder / "extension"
        extension.write_text(f"subjectAltName=IP:{ADDRESS}\n")
        signed = ("-CA", self.file, "-CAkey", ca_key, "-CAcreateserial", "-days", "2", "-extfile", extension)
        _run("openssl", "x509", "-req", "-in", request, *signed, "-out", certificate)


class PrivateRegistry:
    def __init__(self, netns: str, authority: Authority, port: int) -> None:
        self.host = f"{ADDRESS}:{port}"
        self.netns = netns
        self.folder = authority.folder

    def push(self, name: str, mark: str = "") -> str:
        """Put busybox there under the name, with the variable MARK, and return its digest."""
        tar, digest = self.folder / "image.tar", self.folder / "digest"
        with tarfile.open(fileobj=io.BytesIO(busybox_image_tar())) as archive:
            layer = archive.extractfile("layer.tar")
            assert layer is not None
            config = {"Cmd": ["/bin/sh"], "Env": ["PATH=/bin", f"MARK={mark}"]}
            tar.write_bytes(image_archive("local/busybox:1", layer.read(), config, created_by="test"))
        given = ("--dest-tls-verify=false", f"--dest-creds={USER}:{PASSWORD}", "--digestfile", str(digest))
        self.skopeo("copy", "--quiet", *given, f"docker-archive:{tar}", f"docker://{self.host}/{name}")
        return digest.read_text().strip()

    def skopeo(self, *arguments: str) -> None:
        _run("nsenter", f"--net=/run/netns/{self.netns}", "skopeo", *arguments)

    def registries_file(self, *, user: str = USER, password: str = PASSWORD, ca: bool = True) -> Path:
        """Write a node's file of registries, and return its path."""
        secret = self.folder / "password"
        secret.write_text(password)
        secret.chmod(0o600)
        file = self.folder / "registries.yaml"
        lines = [f"username: {user}", f"passwordFile: {secret}"]
        lines += [f"caFile: {self.folder / 'ca.pem'}"] if ca else []
        file.write_text(f"registries:\n  {self.host}:\n" + "".join(f"    {line}\n" for line in lines))
        file.chmod(0o600)
        return file


@contextmanager
def private_registry(netns: str, authority: Authority, *, port: int = 5000) -> Iterator[PrivateRegistry]:
    """Serve at ADDRESS in the namespace, which gets it on its loopback interface. Blocks a moment."""
    served, folder = PrivateRegistry(netns, authority, port), authority.folder
    users = subprocess.run(["htpasswd", "-Bbn", USER, PASSWORD], capture_output=True, check=True, timeout=_COMMAND_S)
    (folder / "users").write_bytes(users.stdout)
    config, log = folder / "config.yml", folder / "registry.log"
    config.write_text(_CONFIG.format(folder=folder, host=served.host))
    subprocess.run(
        ["ip", "-n", netns, "address", "add", f"{ADDRESS}/32", "dev", "lo"], check=False, capture_output=True
    )
    with log.open("ab") as written:
        process = subprocess.Popen(
            ["nsenter", f"--net=/run/netns/{netns}", "docker-registry", "serve", str(config)],
            stdin=subprocess.DEVNULL,
            stdout=written,
            stderr=written,
        )
    try:
        until(lambda: _answers(served, process, log), _READY_S, f"the registry did not answer; see {log}")
        yield served
    finally:
        process.kill()
        process.wait(_COMMAND_S)


def _answers(served: PrivateRegistry, process: "subprocess.Popen[bytes]", log: Path) -> bool:
    if process.poll() is not None:
        raise RuntimeError(f"docker-registry ended: {log.read_text()[-2000:]}")
    try:
        served.skopeo("login", "--tls-verify=false", "--authfile", str(served.folder / "login.json"), "-u", USER, "-p",
                      PASSWORD, served.host)  # fmt: skip
    except subprocess.CalledProcessError:
        return False
    return True


def _run(*command: "str | Path") -> None:
    words: Sequence[str] = [str(word) for word in command]
    subprocess.run(words, check=True, capture_output=True, timeout=_COMMAND_S)
