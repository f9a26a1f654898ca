"""Asks a server how it is by the gRPC health checking protocol, `grpc.health.v1.Health/Check`, without TLS.

Source: https://github.com/grpc/grpc/blob/master/doc/health-checking.md. The messages are so small that they are put
together here: a request has the service's name in field 1, an answer the status in field 1.
"""

import importlib.util

_METHOD = "/grpc.health.v1.Health/Check"
_STATES = {0: "UNKNOWN", 1: "SERVING", 2: "NOT_SERVING", 3: "SERVICE_UNKNOWN"}
SERVING = "SERVING"
# A connection of its own for each probe, past all proxies, and no second try.
_OPTIONS = (("grpc.use_local_subchannel_pool", 1), ("grpc.enable_http_proxy", 0), ("grpc.enable_retries", 0))


async def grpc_health(address: str, port: int, service: str, *, timeout_s: float) -> str:
    """Return the status in the protocol's words, or why there is none, in words of gRPC's."""
    if importlib.util.find_spec("grpc") is None:
        return "the agent lacks the Python package grpcio (`pip install wherry[cri]`)"
    import grpc.aio  # takes 15 MiB, which an agent without such checks needn't have

    async with grpc.aio.insecure_channel(f"{address}:{port}", options=_OPTIONS) as channel:
        call = channel.unary_unary(_METHOD, request_serializer=_request, response_deserializer=_state)
        try:
            return str(await call(service, timeout=timeout_s))
        except grpc.aio.AioRpcError as error:
            return f"{error.code().name}: {error.details()}"[:200]


def _request(service: str) -> bytes:
    """Return the request.

    >>> _request(""), _request("web")
    (b'', b'\\n\\x03web')
    """
    name = service.encode()
    return b"\x0a" + _varint(len(name)) + name if name else b""


def _varint(number: int) -> bytes:
    """Return the number in protobuf's base 128, lowest digits first.

    >>> _varint(3), _varint(300)
    (b'\\x03', b'\\xac\\x02')
    """
    digits = bytearray()
    while number > 0x7F:
        digits.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes([*digits, number])


def _state(answer: bytes) -> str:
    """Return the status that an answer tells; an empty one has the default.

    >>> _state(b"\\x08\\x01"), _state(b""), _state(b"\\x08\\x02"), _state(b"?!")
    ('SERVING', 'UNKNOWN', 'NOT_SERVING', 'something else')
    """
    if not answer:
        return _STATES[0]
    return _STATES.get(answer[1], "something else") if len(answer) == 2 and answer[0] == 0x08 else "something else"
