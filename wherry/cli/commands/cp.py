"""`wherry cp`: copies files and folders out of a container, or into one."""

import asyncio
import os
import stat
import threading
from argparse import ArgumentParser, Namespace
from contextlib import suppress
from typing import IO, NamedTuple

from foundation.trees import Found, pack, unpack
from manifests.errors import NotFoundError, UsageError, WherryError
from wherry.cli.arguments import add_connection
from wherry.cli.attaching import client_of
from wherry.cli.text import clean, say
from wherry.client import Attachment, Client

_READ_BYTES = 256 * 1024
NOTES = """  wherry cp ./site.conf web-0-1f3a9c2e:/etc/site.conf
  wherry cp web-0-1f3a9c2e:/var/log ./logs -c app

Into a folder that is there under the source's name, else to that very name. Permissions and links are kept; what is
copied into a container belongs to its user."""


class Remote(NamedTuple):
    allocation: str
    path: str


def add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("source", metavar="SOURCE", help="a path here, or ALLOCATION:/path")
    parser.add_argument("target", metavar="TARGET", help="the other of the two")
    parser.add_argument("-c", "--container", metavar="NAME", default="", help="which container, of a group")
    add_connection(parser)


def run(arguments: Namespace) -> int:
    source, target = remote_of(arguments.source), remote_of(arguments.target)
    if (source is None) == (target is None):
        both = "both are in containers" if source else "neither is in a container"
        raise UsageError("cp copies between here and a container", why=both, fix="Write one as ALLOCATION:/path.")
    client = client_of(arguments)
    if source is not None:
        asyncio.run(_fetch(client, source, arguments.target, arguments.container))
    elif target is not None:
        asyncio.run(_send(client, arguments.source, target, arguments.container))
    return 0


def remote_of(text: str) -> Remote | None:
    """Return what is meant in a container, None for a path here.

    >>> remote_of("web-0-1f:/etc/hosts"), remote_of("./a:b")
    (Remote(allocation='web-0-1f', path='/etc/hosts'), None)
    """
    allocation, colon, path = text.partition(":")
    if not colon or "/" in allocation or not allocation:
        return None
    if not path.startswith("/"):
        raise UsageError(f"'{text}' names no path in a container", fix=f"Begin it with /: {allocation}:/{path}")
    return Remote(allocation, path)


async def _fetch(client: Client, source: Remote, target: str, container: str) -> None:
    query = _query(source.path, container)
    reading, writing = os.pipe()
    place = _local(target, os.path.basename(source.path.rstrip("/")) or source.allocation)
    try:
        async with client, client.attach(source.allocation, "files", query) as attachment:
            unpacking = asyncio.create_task(asyncio.to_thread(_unpack, place, reading), name="unpack")
            with os.fdopen(writing, "wb", buffering=0) as pipe:
                async for channel, data in attachment.output():
                    if channel == 2:
                        say(clean(data.decode(errors="replace")))
                    elif not unpacking.done():
                        await asyncio.to_thread(_write, pipe, data)
            await unpacking
    finally:
        os.close(place.parent)


def _unpack(place: Found, descriptor: int) -> None:
    with os.fdopen(descriptor, "rb") as file:
        try:
            unpack(place, file, say, owner=None, keeps_links=False)
        except (OSError, ValueError) as error:
            why = getattr(error, "strerror", None) or str(error)
            raise WherryError("cannot write what comes from the container", why=why) from error
        except Exception as error:  # of tarfile: what came was cut off, and that is told elsewhere
            if type(error).__module__ != "tarfile":
                raise


def _write(pipe: IO[bytes], data: bytes) -> None:
    try:
        view = memoryview(data)
        while view:
            view = view[pipe.write(view) or 0 :]
    except BrokenPipeError:
        pass  # the other end tells why


def _local(path: str, name: str) -> Found:
    """Return where something goes here. The user's own links on the way are followed, as by any other program."""
    is_folder = os.path.isdir(path)
    folder = path if is_folder else os.path.dirname(path) or "."
    if path.endswith("/") and not is_folder:
        raise NotFoundError(f"there is no folder {path}", fix="Make it first, or leave the / at the end out.")
    try:
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        raise NotFoundError(f"cannot write to {folder}", why=error.strerror or str(error)) from error
    return Found(descriptor, name if is_folder else os.path.basename(path), 0)


async def _send(client: Client, source: str, target: Remote, container: str) -> None:
    found, name = _there(source)
    query = [*_query(target.path, container), ("write", "true"), ("name", name)]
    try:
        async with client, client.attach(target.allocation, "files", query) as attachment:
            sending = asyncio.create_task(_pack(attachment, found), name="pack")
            try:
                async for _, data in attachment.output():
                    say(clean(data.decode(errors="replace")))
            finally:
                sending.cancel()
                await asyncio.wait([sending])
    finally:
        os.close(found.parent)


def _there(path: str) -> tuple[Found, str]:
    """Return what is there, and its name; a link that is named itself is followed."""
    real = os.path.realpath(path)
    try:
        mode = os.stat(real).st_mode
        parent = os.open(os.path.dirname(real), os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        raise NotFoundError(f"cannot read {path}", why=error.strerror or str(error)) from error
    if not stat.S_ISREG(mode) and not stat.S_ISDIR(mode):
        os.close(parent)
        raise UsageError(f"{path} is neither a file nor a folder")
    return Found(parent, os.path.basename(real) or ".", mode), os.path.basename(os.path.abspath(path))


async def _pack(attachment: Attachment, found: Found) -> None:
    """Send the archive as there is room for it."""
    reading, writing = os.pipe()

    def work() -> None:
        # A broken pipe: nobody wants the rest.
        with suppress(BrokenPipeError), os.fdopen(writing, "wb", buffering=_READ_BYTES) as file:
            pack(found, file, say)

    packing = threading.Thread(target=work, name="pack", daemon=True)
    packing.start()
    with os.fdopen(reading, "rb", buffering=0) as pipe:
        while data := await asyncio.to_thread(pipe.read, _READ_BYTES):
            await attachment.write(data)
    await attachment.end_input()


def _query(path: str, container: str) -> list[tuple[str, str]]:
    return [("path", path), *([("container", container)] if container else [])]
