"""Fixtures of the command line's tests."""

from collections.abc import Iterator

import pytest

from tests.unit.api_stub import Stub, api_stub


@pytest.fixture
def stub(monkeypatch: pytest.MonkeyPatch) -> Iterator[Stub]:
    """An API that answers what the test tells it to, and which the command line finds by itself."""
    with api_stub({}) as stub:
        monkeypatch.setenv("WHERRY_SERVER", stub.url)
        monkeypatch.setenv("WHERRY_TOKEN", "t")
        yield stub
