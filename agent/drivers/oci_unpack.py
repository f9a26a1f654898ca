"""Unpacks one layer of an image into a folder as overlayfs wants it. A program of its own, run with root's rights.

    python -I -S oci_unpack.py FOLDER < layer.tar[.gz|.bz2|.xz]

It changes its root to FOLDER before it reads anything, so that no link, path or name in the layer leads out of it.
Prints the SHA-256 of what it read. Knows nothing of the agent: it must not import it.

A layer says what it removes by files whose names begin with `.wh.`; overlayfs, by devices 0:0 and by an attribute.
Source: the OCI image specification, layer.md; Linux, Documentation/filesystems/overlayfs.rst.
"""

import bz2  # noqa: F401  # all decoders must be loaded before the root changes
import encodings.idna  # noqa: F401
import gzip  # noqa: F401
import hashlib
import lzma  # noqa: F401
import os
import stat
import sys
import tarfile
import zlib
from typing import BinaryIO, cast

WHITEOUT = ".wh."
OPAQUE = ".wh..wh..opq"


class _Hashed:
    """A stream that hashes what is read from it."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream
        self.sha256 = hashlib.sha256()

    def read(self, size: int = -1) -> bytes:
        data = self._stream.read(size)
        self.sha256.update(data)
        return data


def unpack(stream: BinaryIO) -> str:
    """Unpack the archive below the root, and return its SHA-256 in hexadecimal."""
    hashed = _Hashed(stream)
    folders: list[tarfile.TarInfo] = []
    with tarfile.open(fileobj=cast(BinaryIO, hashed), mode="r|*") as archive:
        archive.extraction_filter = lambda member, _: member  # the root is the jail
        for member in archive:
            _place(archive, member, folders)
    while hashed.read(1 << 20):  # padding behind the end of the archive counts
        pass
    for folder in folders:  # last: to write into a folder changes its time
        os.utime(_path(folder.name), (folder.mtime, folder.mtime))
    return hashed.sha256.hexdigest()


def _place(archive: tarfile.TarFile, member: tarfile.TarInfo, folders: list[tarfile.TarInfo]) -> None:
    path = _path(member.name)
    parent, name = os.path.split(path)
    if path == "/":
        return
    os.makedirs(parent, exist_ok=True)
    if name == OPAQUE:
        os.setxattr(parent, "trusted.overlay.opaque", b"y")
        return
    if name.startswith(WHITEOUT):
        _remove(os.path.join(parent, name.removeprefix(WHITEOUT)))
        os.mknod(os.path.join(parent, name.removeprefix(WHITEOUT)), stat.S_IFCHR, os.makedev(0, 0))
        return
    if not (member.isdir() and os.path.isdir(path) and not os.path.islink(path)):
        _remove(path)
    if member.islnk():
        os.link(_path(member.linkname), path, follow_symlinks=False)
        return
    archive.extract(member, "/", numeric_owner=True)
    if not member.issym():
        os.chmod(path, member.mode & 0o7777)  # extracting as another owner may have dropped bits
    for key, value in member.pax_headers.items():
        if key.startswith("SCHILY.xattr."):
            os.setxattr(
                path, key.removeprefix("SCHILY.xattr."), value.encode("utf-8", "surrogateescape"), follow_symlinks=False
            )
    if member.isdir():
        folders.append(member)


def _path(name: str) -> str:
    """Return the absolute path, without `..`, for a name in the archive."""
    return os.path.normpath("/" + name.lstrip("/"))


def _remove(path: str) -> None:
    if os.path.isdir(path) and not os.path.islink(path):
        import shutil

        shutil.rmtree(path)
    elif os.path.lexists(path):
        os.unlink(path)


def main(folder: str) -> int:
    import shutil  # noqa: F401  # must be loaded before the root changes

    os.chroot(folder)
    os.chdir("/")
    os.umask(0)
    try:
        print(unpack(sys.stdin.buffer))
    except (tarfile.TarError, OSError, EOFError, zlib.error) as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
