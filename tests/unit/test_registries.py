"""The node's file of registries: what it may say, who may read it, and that what is secret stays so."""

import logging
from pathlib import Path

import pytest

from agent.driver import ImageError
from agent.drivers.docker_codec import to_auth_header
from agent.drivers.pull_words import pull_failure
from agent.registries import Access, Registries
from manifests.errors import InvalidError

HOST = "r.example.com:5000"


def written(path: Path, text: str, mode: int = 0o640) -> Path:
    path.write_text(text)
    path.chmod(mode)
    return path


def with_entry(folder: Path, *lines: str) -> Registries:
    text = "".join(f"    {line}\n" for line in lines)
    return Registries(written(folder / "registries.yaml", f"registries:\n  {HOST}:\n{text}"))


def with_password(folder: Path, mode: int = 0o600) -> Registries:
    file = written(folder / "password", "se cret\n", mode)
    return with_entry(folder, "username: ci", f"passwordFile: {file}")


def test_credentials_are_for_their_host_alone(tmp_path: Path) -> None:
    registries = with_password(tmp_path)
    mine = registries.access(f"{HOST}/team/web:1")
    assert (mine.host, mine.username, mine.password) == (HOST, "ci", "se cret")
    for other in ("r.example.com/team/web:1", "nginx:1", "evil.example.com/r.example.com:5000/web:1"):
        found = registries.access(other)
        assert (found.username, found.password) == ("", "")
        assert to_auth_header(found) == {}


def test_a_password_is_in_no_text_of_what_holds_it(tmp_path: Path) -> None:
    access = with_password(tmp_path).access(f"{HOST}/web")
    assert "se cret" not in repr(access) + str(access)
    failure = pull_failure("docker", f"{HOST}/web", access, "unauthorized")
    assert "se cret" not in str(failure) + failure.sentence()


def test_a_changed_password_holds_from_the_next_pull_on(tmp_path: Path) -> None:
    registries = with_password(tmp_path)
    registries.access(f"{HOST}/web")
    written(tmp_path / "password", "other")
    assert registries.access(f"{HOST}/web").password == "other"


def test_a_file_that_is_not_there_says_nothing_unless_it_was_named(tmp_path: Path) -> None:
    assert Registries(tmp_path / "none").access("nginx:1") == Access("docker.io", str(tmp_path / "none"))
    with pytest.raises(InvalidError, match="there is no file"):
        Registries(tmp_path / "none", is_optional=False).check()


def test_loopback_needs_no_tls_unless_a_ca_is_named(tmp_path: Path) -> None:
    none = Registries(tmp_path / "none")
    assert none.access("127.0.0.1:5000/web").is_plain
    assert none.access("localhost/web").is_plain
    assert not none.access(f"{HOST}/web").is_plain
    assert with_entry(tmp_path, "plainHttp: true").access(f"{HOST}/web").is_plain
    text = "registries:\n  127.0.0.1:5000: {caFile: /etc/ca.pem}\n"
    assert not Registries(written(tmp_path / "r.yaml", text)).access("127.0.0.1:5000/web").is_plain


@pytest.mark.parametrize("mode", [0o604, 0o602, 0o666])
def test_a_secret_that_is_open_to_others_is_not_used(tmp_path: Path, mode: int) -> None:
    with pytest.raises(ImageError, match="chmod o="):
        with_password(tmp_path, mode).access(f"{HOST}/web")
    registries = with_password(tmp_path)
    (tmp_path / "registries.yaml").chmod(mode)
    with pytest.raises(InvalidError, match="is open to others"):
        registries.check()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("registries:\n  r.example.com:\n    usrname: ci\n", "r.yaml:3: registries['r.example.com'].usrname: un"),
        ("registries:\n  r.example.com:\n    username: ci\n", "username: needs a passwordFile"),
        ("registries:\n  https://r.example.com:\n    plainHttp: true\n", "is not a registry's host"),
        ("registries:\n  r.example.com:\n    plainHttp: yes\n", "r.yaml:3: "),
        ("registries:\n  r.example.com:\n    caFile: ca.pem\n", "must be an absolute path; found 'ca.pem'"),
        ("registries:\n\tr.example.com: {}\n", "indent with spaces"),
        ("registry: {}\n", "did you mean 'registries'?"),
        ("", "must have one document; found 0"),
        (
            "registries:\n  a.example:\n    credentialHelper: [x]\n    username: ci\n    passwordFile: /x\n",
            "r.yaml:3: registries['a.example'].credentialHelper: tells both",
        ),
    ],
)
def test_what_is_wrong_with_the_file_is_told_with_its_line(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(InvalidError) as caught:
        Registries(written(tmp_path / "r.yaml", text)).check()
    assert said in str(caught.value)


HELPER = """#!/bin/sh
read -r host
echo "$host" >{folder}/asked
printf '{answer}'
"""


def with_helper(folder: Path, answer: str) -> Registries:
    helper = written(folder / "helper", HELPER.format(folder=folder, answer=answer), 0o700)
    return with_entry(folder, f"credentialHelper: [{helper}, get]")


def test_a_helper_is_asked_at_the_pull(tmp_path: Path) -> None:
    access = with_helper(tmp_path, '{"Username": "robot", "Secret": "s3"}').access(f"{HOST}/web")
    assert (access.username, access.password) == ("robot", "s3")
    assert (tmp_path / "asked").read_text() == f"{HOST}\n"


@pytest.mark.parametrize("answer", ["s3cret", '{"Username": "s3cret"}', '{"Username": "<token>", "Secret": "s3cret"}'])
def test_what_a_helper_says_wrongly_is_not_repeated(
    tmp_path: Path, answer: str, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.DEBUG), pytest.raises(ImageError, match="credential helper") as caught:
        with_helper(tmp_path, answer).access(f"{HOST}/web")
    assert "s3cret" not in str(caught.value) + caplog.text
    assert f"echo {HOST} | " in caught.value.fix


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("manifest for web:9 not found: manifest unknown", "docker.io has no such image"),
        ("pull access denied for web, repository does not exist or may require 'docker login'", "this node has none"),
        ("dial tcp: lookup nowhere.invalid: no such host", "can't be reached"),
        ("write /data/x: no space left on device", "disk is full"),
        ("Get https://r/v2/: x509: certificate signed by unknown authority", "doesn't trust the certificate"),
        ("http: server gave HTTP response to HTTPS client", "speaks HTTP without TLS"),
        ("something new", "manager's own words"),
    ],
)
@pytest.mark.parametrize("driver", ["docker", "cri", "oci"])
def test_a_failed_pull_says_what_to_do(driver: str, text: str, said: str) -> None:
    error = pull_failure(driver, "web:9", Access("docker.io"), text)
    assert error.what.startswith("cannot pull image web:9")
    assert error.why == text
    assert said in str(error)
    assert "{" not in error.fix
