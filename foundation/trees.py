"""Files and folders as a tar stream and back, which never leave the folder that they belong to.

Everything is opened relative to a descriptor, one name at a time, and links are followed only by `resolve`, within its
root: whoever may change the tree meanwhile, or wrote the archive, leads nobody out. The first member of an archive is
the file or folder itself, named `.`; the others stand below it. Links and permission bits are kept; devices, sockets
and pipes are left out, and owners are the reader's. Blocks: for a thread.
"""

import errno
import os
import stat
import tarfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import IO, NamedTuple

MOST_LINKS = 40  # on one path, as in the kernel
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_COPY_BYTES = 256 * 1024
Say = Callable[[str], None]


class Found(NamedTuple):
    """Where a path leads: a folder's descriptor, which the caller closes, and the name in it."""

    parent: int
    name: str  # "." for the folder itself
    mode: int  # 0: there is nothing of that name


def resolve(root: int, path: str) -> Found:
    """Follow the path with all its links, none of which leads out of `root`: that is `/` to them.

    Raises OSError as the kernel would. The last name may be missing.
    """
    folders = [os.dup(root)]
    todo = [part for part in reversed(path.split("/")) if part not in ("", ".")]
    links = 0
    try:
        while todo:
            name = todo.pop()
            if name == "..":
                if len(folders) > 1:
                    os.close(folders.pop())
                continue
            mode = _mode(folders[-1], name)
            if stat.S_ISLNK(mode):
                links += 1
                if links > MOST_LINKS:
                    raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), path)
                target = os.readlink(name, dir_fd=folders[-1])
                if target.startswith("/"):
                    while len(folders) > 1:
                        os.close(folders.pop())
                todo += [part for part in reversed(target.split("/")) if part not in ("", ".")]
            elif stat.S_ISDIR(mode):
                folders.append(os.open(name, _FOLDER, dir_fd=folders[-1]))
            elif todo or path.endswith("/"):
                number = errno.ENOTDIR if mode else errno.ENOENT
                raise OSError(number, os.strerror(number), path)
            else:
                return Found(os.dup(folders[-1]), name, mode)
        return Found(os.dup(folders[-1]), ".", stat.S_IFDIR | 0o755)
    finally:
        for folder in folders:
            os.close(folder)


def place_for(root: int, path: str, name: str) -> Found:
    """Return where what is copied to that path goes: into it, under `name`, if it is a folder, else there itself."""
    found = resolve(root, path)
    if not stat.S_ISDIR(found.mode) or found.name != ".":
        return found
    if name in ("", ".", "..") or "/" in name:
        return found
    return Found(found.parent, name, _mode(found.parent, name))


def pack(found: Found, out: IO[bytes], say: Say) -> None:
    """Write what was found as an archive. What can't be packed is said, and left out."""
    with tarfile.open(fileobj=out, mode="w|", format=tarfile.PAX_FORMAT, bufsize=_COPY_BYTES) as archive:
        _pack(archive, found.parent, found.name, ".", say)


def _pack(archive: tarfile.TarFile, parent: int, name: str, path: str, say: Say) -> None:
    info = tarfile.TarInfo(path)
    status = os.stat(name, dir_fd=parent, follow_symlinks=False)
    info.mtime, info.mode = int(status.st_mtime), stat.S_IMODE(status.st_mode) & 0o777
    if stat.S_ISLNK(status.st_mode):
        info.type, info.linkname = tarfile.SYMTYPE, os.readlink(name, dir_fd=parent)
        archive.addfile(info)
    elif stat.S_ISDIR(status.st_mode):
        info.type = tarfile.DIRTYPE
        archive.addfile(info)
        with _opened(name, _FOLDER, parent) as folder:
            for child in sorted(os.listdir(folder)):
                with suppress(FileNotFoundError):  # it went meanwhile
                    _pack(archive, folder, child, f"{path}/{child}", say)
    elif stat.S_ISREG(status.st_mode):
        with _opened(name, _FILE, parent) as file, os.fdopen(os.dup(file), "rb") as data:
            info.size = os.fstat(file).st_size
            archive.addfile(info, _Sized(data, info.size))  # type: ignore[arg-type]  # it has the `read` that is used
    else:
        say(f"{path}: left out, as it is neither a file, a folder nor a link")


class _Sized:
    """Reads exactly so many bytes of a file, zeros where it has become shorter: the archive has named its size."""

    def __init__(self, data: IO[bytes], size: int) -> None:
        self._data, self._left = data, size

    def read(self, count: int) -> bytes:
        data = self._data.read(min(count, self._left))
        data += b"\0" * (min(count, self._left) - len(data))
        self._left -= len(data)
        return data


def unpack(into: Found, source: IO[bytes], say: Say, *, owner: tuple[int, int] | None, keeps_links: bool) -> None:
    """Make what an archive holds. Raises ValueError for a member that would leave the place, OSError for the rest.

    `keeps_links`: also those that lead elsewhere; else only what stays within the place.
    """
    with tarfile.open(fileobj=source, mode="r|", bufsize=_COPY_BYTES) as archive:
        modes: list[tuple[list[str], int, float]] = []
        for member in archive:
            parts = _parts(member.name)
            with _parent_of(into, parts) as (parent, name):
                if member.isdir():
                    _make_folder(parent, name, owner)
                    modes.append((parts, member.mode & 0o777, member.mtime))
                elif member.issym():
                    if keeps_links or _stays(parts, member.linkname):
                        _make_link(parent, name, member.linkname)
                    else:
                        say(f"{member.name}: left out, as it is a link that leads elsewhere: {member.linkname}")
                elif member.isreg():
                    data = archive.extractfile(member)
                    assert data is not None
                    _make_file(parent, name, data, member, owner)
                else:
                    say(f"{member.name}: left out, as it is neither a file, a folder nor a link")
        for parts, mode, mtime in reversed(modes):  # last, as a folder may be closed to writing
            with _parent_of(into, parts) as (parent, name), _opened(name, _FOLDER, parent) as folder:
                os.fchmod(folder, mode)
                os.utime(folder, (mtime, mtime))


def _parts(name: str) -> list[str]:
    """Return the names that lead to a member.

    >>> _parts("./a/b"), _parts(".")
    (['a', 'b'], [])
    """
    parts = name.split("/")
    if name.startswith("/") or ".." in parts or "\0" in name:
        raise ValueError(f"{name!r} leads out of the place where it belongs")
    return [part for part in parts if part not in ("", ".")]


def _stays(parts: list[str], target: str) -> bool:
    """Say whether a link stays below the top of the archive. The top itself may not be a link to elsewhere.

    >>> _stays(["a", "b"], "../c"), _stays(["a"], "../c"), _stays(["a"], "/etc")
    (True, False, False)
    """
    depth = len(parts) - 1
    if target.startswith("/"):
        return False
    for part in target.split("/"):
        depth += -1 if part == ".." else 0 if part in ("", ".") else 1
        if depth < 0:
            return False
    return True


@contextmanager
def _parent_of(into: Found, parts: list[str]) -> Iterator[tuple[int, str]]:
    """Open the folder of a member, by names alone: a link on the way is an error."""
    folder, names = os.dup(into.parent), [into.name, *parts]
    try:
        for name in names[:-1]:
            below = os.open(name, _FOLDER, dir_fd=folder)
            os.close(folder)
            folder = below
        yield folder, names[-1]
    finally:
        os.close(folder)


def _make_folder(parent: int, name: str, owner: tuple[int, int] | None) -> None:
    with suppress(FileExistsError):
        os.mkdir(name, 0o700, dir_fd=parent)
        if owner is not None:
            os.chown(name, *owner, dir_fd=parent, follow_symlinks=False)
    with _opened(name, _FOLDER, parent):  # a link of that name isn't a folder
        pass


def _make_link(parent: int, name: str, target: str) -> None:
    if stat.S_ISLNK(_mode(parent, name)):
        os.unlink(name, dir_fd=parent)
    os.symlink(target, name, dir_fd=parent)


def _make_file(parent: int, name: str, data: IO[bytes], member: tarfile.TarInfo, owner: tuple[int, int] | None) -> None:
    if stat.S_ISLNK(_mode(parent, name)):
        os.unlink(name, dir_fd=parent)  # the link is replaced, and what it leads to left alone
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    with _opened(name, flags, parent) as file:
        while piece := data.read(_COPY_BYTES):
            view = memoryview(piece)
            while view:
                view = view[os.write(file, view) :]
        if owner is not None:
            os.fchown(file, *owner)
        os.fchmod(file, member.mode & 0o777)
        os.utime(file, (member.mtime, member.mtime))


@contextmanager
def _opened(name: str, flags: int, parent: int) -> Iterator[int]:
    descriptor = os.open(name, flags, 0o600, dir_fd=parent)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _mode(parent: int, name: str) -> int:
    try:
        return os.stat(name, dir_fd=parent, follow_symlinks=False).st_mode
    except FileNotFoundError:
        return 0
