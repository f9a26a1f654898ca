"""The image of sandboxes, which hold the network of a group of containers: one program that does nothing but wait.

Made here, byte for byte, so that no node needs a registry for it. Knows machine code and tar, no container manager.
"""

import io
import struct
import tarfile
from collections.abc import Mapping

from agent.drivers.local_image import add_file, architecture, image_archive
from manifests.errors import NotFoundError

PROGRAM = "/wait"
_BASE = 0x400000  # where the program is mapped
_HEADER, _SEGMENT = struct.Struct("<16sHHIQQQIHHHHHH"), struct.Struct("<IIQQQQQQ")


def _words(*instructions: int) -> bytes:
    return struct.pack(f"<{len(instructions)}I", *instructions)


_MACHINES: Mapping[str, tuple[int, bytes]] = {
    # mov eax, 34 (pause); syscall; jmp to the start
    "amd64": (62, bytes.fromhex("b822000000 0f05 ebf7")),
    # mov x0..x4, 0; mov x8, 73 (ppoll, there is no pause); svc 0; b to the start
    "arm64": (
        183,
        _words(0xD2800000, 0xD2800001, 0xD2800002, 0xD2800003, 0xD2800004, 0xD2800928, 0xD4000001, 0x17FFFFF9),
    ),
}


def waiting_program(machine: str) -> bytes:
    """Return an ELF executable, static and without any data, that waits for ever. As process 1 only SIGKILL ends it.

    Raises NotFoundError for a machine whose code isn't known.
    """
    if machine not in _MACHINES:
        raise NotFoundError(
            f"cannot run groups of containers on {machine}",
            why=f"the program that holds their network is there for {' and '.join(_MACHINES)} only",
            fix="Run single containers on this node, or add the program to agent/drivers/sandbox_image.py.",
        )
    number, code = _MACHINES[machine]
    start = _HEADER.size + _SEGMENT.size
    size = start + len(code)
    ident = b"\x7fELF" + bytes([2, 1, 1])  # 64 bits, little-endian, version 1
    header = _HEADER.pack(
        *(ident, 2, number, 1, _BASE + start, _HEADER.size, 0),  # executable; its entry; where its one segment is told
        *(0, _HEADER.size, _SEGMENT.size, 1, 0, 0, 0),
    )
    segment = _SEGMENT.pack(1, 5, 0, _BASE, _BASE, size, size, 0x1000)  # load all of the file to read and run
    return header + segment + code


def sandbox_image_tar(tag: str, machine: str = "") -> bytes:
    """Return the archive, in the format of `docker save`, for this machine or the one given."""
    program = waiting_program(machine or architecture())
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as layer:
        add_file(layer, PROGRAM.lstrip("/"), program, mode=0o755)
    return image_archive(
        tag, buffer.getvalue(), {"Entrypoint": [PROGRAM]}, created_by="wherry: sandbox", machine=machine
    )
