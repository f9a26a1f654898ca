"""Trees come out as they went in, and neither a link, nor an archive's names, nor a race leads out of their folder."""

import io
import os
import stat
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from foundation.trees import Found, pack, place_for, resolve, unpack


@pytest.fixture
def root(tmp_path: Path) -> Iterator[tuple[Path, int]]:
    """A root with a secret beside it, and its descriptor."""
    inside = tmp_path / "root"
    inside.mkdir()
    (tmp_path / "secret").write_text("secret")
    descriptor = os.open(inside, os.O_RDONLY | os.O_DIRECTORY)
    yield inside, descriptor
    os.close(descriptor)


def packed(root: int, path: str) -> tuple[bytes, list[str]]:
    out, said = io.BytesIO(), list[str]()
    found = resolve(root, path)
    try:
        pack(found, out, said.append)
    finally:
        os.close(found.parent)
    return out.getvalue(), said


def unpacked(root: int, name: str, data: bytes, *, keeps_links: bool = False) -> list[str]:
    said: list[str] = []
    unpack(Found(root, name, 0), io.BytesIO(data), said.append, owner=None, keeps_links=keeps_links)
    return said


def archive(*members: tuple[str, bytes, str]) -> bytes:
    """Return an archive of these names, types and texts or links."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for name, kind, text in members:
            info = tarfile.TarInfo(name)
            info.type, info.mode = kind, 0o644
            if kind == tarfile.REGTYPE:
                info.size = len(text)
                tar.addfile(info, io.BytesIO(text.encode()))
            else:
                info.linkname = text
                tar.addfile(info)
    return out.getvalue()


def test_a_tree_comes_out_as_it_went_in(root: tuple[Path, int]) -> None:
    inside, descriptor = root
    (inside / "a/deep").mkdir(parents=True)
    (inside / "a/run").write_text("#!/bin/sh")
    (inside / "a/run").chmod(0o750)
    (inside / "a/deep/empty").touch()
    (inside / "a/link").symlink_to("deep/empty")
    (inside / "a/deep").chmod(0o500)
    data, said = packed(descriptor, "/a")
    assert said == []
    assert unpacked(descriptor, "b", data) == []
    assert (inside / "b/run").read_text() == "#!/bin/sh"
    assert stat.S_IMODE((inside / "b/run").stat().st_mode) == 0o750
    assert stat.S_IMODE((inside / "b/deep").stat().st_mode) == 0o500
    assert os.readlink(inside / "b/link") == "deep/empty"
    assert (inside / "b/run").stat().st_mtime == int((inside / "a/run").stat().st_mtime)


def test_one_file_goes_under_another_name_and_what_was_there_is_replaced(root: tuple[Path, int]) -> None:
    inside, descriptor = root
    (inside / "one").write_text("new")
    (inside / "two").write_text("what was there before")
    unpacked(descriptor, "two", packed(descriptor, "one")[0])
    assert (inside / "two").read_text() == "new"


@pytest.mark.parametrize("link", ["/secret", "../secret", "../../../../secret", "/../secret"])
def test_links_lead_no_further_than_the_root(root: tuple[Path, int], link: str) -> None:
    inside, descriptor = root
    (inside / "link").symlink_to(link)
    found = resolve(descriptor, "/link")
    os.close(found.parent)
    assert found.mode == 0, "there is nothing of that name in the root"
    (inside / "secret").write_text("its own")
    out, _ = packed(descriptor, "/link")
    assert b"its own" in out


def test_links_in_a_circle_and_missing_folders_are_errors(root: tuple[Path, int]) -> None:
    inside, descriptor = root
    (inside / "x").symlink_to("y")
    (inside / "y").symlink_to("x")
    with pytest.raises(OSError, match="symbolic links"):
        resolve(descriptor, "/x")
    with pytest.raises(FileNotFoundError):
        resolve(descriptor, "/none/file")


@pytest.mark.parametrize("name", ["../evil", "/evil", "a/../../evil", "./../evil"])
def test_a_member_that_would_leave_is_refused(root: tuple[Path, int], name: str) -> None:
    inside, descriptor = root
    with pytest.raises(ValueError, match="leads out"):
        unpacked(descriptor, "b", archive((".", tarfile.DIRTYPE, ""), (name, tarfile.REGTYPE, "x")))
    assert not (inside.parent / "evil").exists()


@pytest.mark.parametrize("keeps_links", [True, False])
def test_nothing_is_written_through_a_link_of_the_archive(root: tuple[Path, int], keeps_links: bool) -> None:
    inside, descriptor = root
    data = archive(
        (".", tarfile.DIRTYPE, ""),
        ("out", tarfile.SYMTYPE, "../.."),
        ("out/secret", tarfile.REGTYPE, "overwritten"),
    )
    with pytest.raises(OSError):  # noqa: PT011  # which one depends on whether the link was made
        unpacked(descriptor, "b", data, keeps_links=keeps_links)
    assert (inside.parent / "secret").read_text() == "secret"


def test_a_file_replaces_a_link_and_not_what_it_leads_to(root: tuple[Path, int]) -> None:
    inside, descriptor = root
    (inside / "b").symlink_to("../secret")
    unpacked(descriptor, "b", archive((".", tarfile.REGTYPE, "mine")))
    assert (inside.parent / "secret").read_text() == "secret"
    assert (inside / "b").read_text() == "mine"


def test_links_that_lead_elsewhere_are_left_out_and_said_unless_they_are_wanted(root: tuple[Path, int]) -> None:
    inside, descriptor = root
    data = archive((".", tarfile.DIRTYPE, ""), ("l", tarfile.SYMTYPE, "/etc/passwd"), ("in", tarfile.SYMTYPE, "./l"))
    (said,) = unpacked(descriptor, "b", data)
    assert "/etc/passwd" in said
    assert not os.path.lexists(inside / "b/l")
    assert os.path.lexists(inside / "b/in")
    assert unpacked(descriptor, "c", data, keeps_links=True) == []
    assert os.readlink(inside / "c/l") == "/etc/passwd"


def test_what_is_no_file_is_left_out_and_said(root: tuple[Path, int]) -> None:
    inside, descriptor = root
    (inside / "a").mkdir()
    os.mkfifo(inside / "a/pipe")
    data, (said,) = packed(descriptor, "/a")
    assert "./pipe" in said
    assert unpacked(descriptor, "b", data) == []
    assert unpacked(descriptor, "c", archive((".", tarfile.DIRTYPE, ""), ("dev", tarfile.CHRTYPE, ""))) != []


def test_a_folder_takes_it_under_its_name_and_anything_else_is_the_name(root: tuple[Path, int]) -> None:
    inside, descriptor = root
    (inside / "folder").mkdir()
    (inside / "to-folder").symlink_to("/folder")
    for path, name in (("/folder", "x"), ("/to-folder", "x"), ("/new", "new"), ("/folder/y", "y")):
        found = place_for(descriptor, path, "x")
        assert (found.name, os.readlink(f"/proc/self/fd/{found.parent}").removeprefix(str(inside))) == (
            name,
            "" if path == "/new" else "/folder",
        )
        os.close(found.parent)


NAMES = st.sampled_from(["a", "b", "c", "..", "."])


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(
    st.lists(st.tuples(NAMES, NAMES, st.lists(NAMES, min_size=1, max_size=4)), max_size=6), st.lists(NAMES, max_size=5)
)
def test_no_links_and_no_path_leave_the_root(
    root: tuple[Path, int], links: list[tuple[str, str, list[str]]], path: list[str]
) -> None:
    inside, descriptor = root
    for parent, name, target in links:
        folder = inside / parent
        if parent not in (".", "..") and name not in (".", ".."):
            folder.mkdir(exist_ok=True) if not os.path.lexists(folder) else None
            if folder.is_dir() and not folder.is_symlink() and not os.path.lexists(folder / name):
                (folder / name).symlink_to("/".join(target))
    try:
        found = resolve(descriptor, "/".join(path))
    except OSError:
        return
    where = os.readlink(f"/proc/self/fd/{found.parent}")
    os.close(found.parent)
    assert where == str(inside) or where.startswith(f"{inside}/")
