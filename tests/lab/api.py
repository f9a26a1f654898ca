"""The tests' own way to Wherry's HTTP API: small, and independent of the client library that is under test."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any

import aiohttp

TRY_S = 5.0
# Sent twice, these do the same as sent once, so that another server may be asked when an answer was lost.
IDEMPOTENT = ("GET", "PUT", "DELETE")


class ApiError(Exception):
    """An answer that isn't the asked-for one. `wait_until` waits through it."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What a server said: the JSON body, or its text where that isn't JSON."""

    status: int
    body: Any
    server: str
    warning: str  # that it may be out of date

    @property
    def is_ok(self) -> bool:
        return self.status < 400


class Api:
    """A session with an administrator's token, at whichever server answers. An async context manager."""

    def __init__(self, servers: Sequence[str], token: str) -> None:
        self._servers = list(servers)
        headers = {"Authorization": f"Bearer {token}"}
        self._session = aiohttp.ClientSession(headers=headers)

    async def __aenter__(self) -> "Api":
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._session.close()

    async def call(
        self, method: str, path: str, body: object = None, *, headers: Mapping[str, str] | None = None
    ) -> Answer:
        """Return the first answer below 500 of any server, the last that answered first; else the last answer.

        Raises the last server's connection error when none answered at all, and at once for a lost answer to a POST.
        """
        answer: Answer | None = None
        failure: Exception | None = None
        for server in tuple(self._servers):
            try:
                answer = await self._ask(server, method, path, body, headers)
            except (aiohttp.ClientError, TimeoutError) as error:
                if method not in IDEMPOTENT and not isinstance(error, aiohttp.ClientConnectorError):
                    raise
                failure = error
            else:
                if answer.status < 500:
                    return answer
            self._servers.append(self._servers.pop(0))
        if answer is None:
            assert failure is not None
            raise failure
        return answer

    async def ask(self, server: str, method: str, path: str, body: object = None, *, within_s: float = TRY_S) -> Answer:
        """Return that one server's answer."""
        return await self._ask(server, method, path, body, None, within_s)

    async def get(self, path: str) -> Any:
        """Return the body; ApiError with the problem when the answer is an error."""
        return _body(await self.call("GET", path), f"GET {path}")

    async def get_from(self, server: str, path: str) -> Any:
        """Return the body as that one server has it."""
        return _body(await self.ask(server, "GET", path), f"GET {path}")

    async def items(self, path: str) -> list[dict[str, Any]]:
        """Return what a list holds."""
        return list((await self.get(path))["items"])

    async def apply(self, *manifests: Mapping[str, object]) -> Any:
        """Apply manifests, all or none, and return the results."""
        return _body(await self.call("POST", "/v1/apply", {"documents": manifests, "dryRun": False}), "apply")

    async def _ask(
        self,
        server: str,
        method: str,
        path: str,
        body: object,
        headers: Mapping[str, str] | None,
        within_s: float = TRY_S,
    ) -> Answer:
        timeout = aiohttp.ClientTimeout(total=within_s)
        url = f"{server}{path}"
        async with self._session.request(method, url, json=body, headers=headers, timeout=timeout) as response:
            text = await response.text()
            warning = response.headers.get("Warning", "")
            is_json = response.content_type.endswith("json")
            return Answer(response.status, json.loads(text) if is_json and text else text, server, warning)


def _body(answer: Answer, what: str) -> Any:
    if not answer.is_ok:
        raise ApiError(f"{what}: {answer}")
    return answer.body
