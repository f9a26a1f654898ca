"""Where the command line finds its cluster, and which token goes where."""

import json
from pathlib import Path

import pytest

from manifests.errors import InvalidError, UsageError
from wherry.cli.connection import dev_data_dir, discover


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """Return a home with a running `wherry dev`."""
    write_client(tmp_path / ".local/share/wherry/dev", "http://dev:1", "dev-token")
    return tmp_path


def write_client(folder: Path, server: str, token: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "client.json").write_text(json.dumps({"servers": [server], "token": token, "caFile": None}))


def test_the_cluster_of_wherry_dev_is_found_by_itself(home: Path) -> None:
    found = discover(env={"HOME": str(home)})
    assert (found.servers, found.token) == (("http://dev:1",), "dev-token")


def test_the_data_dir_goes_before_wherry_dev(home: Path, tmp_path: Path) -> None:
    write_client(tmp_path / "other", "http://other:1", "other-token")
    found = discover(env={"HOME": str(home), "WHERRY_DATA_DIR": str(tmp_path / "other")})
    assert (found.servers, found.token) == (("http://other:1",), "other-token")


def test_the_environment_goes_before_files_and_flags_before_both(home: Path) -> None:
    env = {"HOME": str(home), "WHERRY_SERVER": "http://env:1, http://env:2", "WHERRY_TOKEN": "env-token"}
    assert discover(env=env)[:2] == (("http://env:1", "http://env:2"), "env-token")
    (home / "t").write_text("flag-token\n")
    assert discover(["flag:7400"], str(home / "t"), env=env)[:2] == (("http://flag:7400",), "flag-token")


def test_a_token_of_a_client_file_goes_only_to_its_own_servers(home: Path) -> None:
    assert discover(["http://elsewhere:1"], env={"HOME": str(home)}).token == ""
    assert discover(["http://dev:1/"], env={"HOME": str(home)}).token == "dev-token"


def test_without_any_the_error_says_how_to_start_one(tmp_path: Path) -> None:
    with pytest.raises(UsageError) as caught:
        discover(env={"HOME": str(tmp_path), "WHERRY_DATA_DIR": str(tmp_path)})
    assert "wherry dev" in str(caught.value)
    assert str(tmp_path) in caught.value.why


@pytest.mark.parametrize("url", ["ftp://x", "http://", "http://a/b", "http://a b"])
def test_what_is_no_url_is_refused(url: str) -> None:
    with pytest.raises(UsageError):
        discover([url], env={"HOME": "/nonexistent"})


def test_a_broken_client_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "client.json").write_text("{")
    with pytest.raises(InvalidError, match="can't read"):
        discover(env={"WHERRY_DATA_DIR": str(tmp_path)})


@pytest.mark.parametrize("text", ["", "two words", "a\nb"])
def test_a_token_file_holds_one_token(tmp_path: Path, text: str) -> None:
    (tmp_path / "t").write_text(text)
    with pytest.raises(UsageError):
        discover(["http://a"], str(tmp_path / "t"), env={})


def test_the_dev_folder_honours_xdg() -> None:
    assert dev_data_dir({"HOME": "/h"}) == "/h/.local/share/wherry/dev"
    assert dev_data_dir({"HOME": "/h", "XDG_DATA_HOME": "/x"}) == "/x/wherry/dev"
