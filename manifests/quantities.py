"""Quantities as people write them: cpu `250m` or `1.5`, memory `64Mi` or `1G`, durations `1m30s`.

The grammar is Kubernetes' for amounts, less exponents, and Go's for durations. Parsers raise ValueError in words that
show a right example; renderers give the shortest text that parses back to the same value.
"""

import re
from decimal import Decimal

MOST_DIGITS = 18
_AMOUNT = re.compile(r"([0-9]{1,18})(?:\.([0-9]{1,18}))?([A-Za-z]{0,8})")
_SUFFIXES = {"": 1, "k": 10**3, "M": 10**6, "G": 10**9, "T": 10**12, "P": 10**15} | {
    "Ki": 2**10,
    "Mi": 2**20,
    "Gi": 2**30,
    "Ti": 2**40,
    "Pi": 2**50,
}
_DURATION_PART = re.compile(r"([0-9]{1,18}(?:\.[0-9]{1,18})?)(ms|s|m|h|d)")
_BARE_NUMBER = re.compile(r"[0-9]{1,9}(?:\.[0-9]{1,3})?")
_SECONDS = {"ms": Decimal("0.001"), "s": Decimal(1), "m": Decimal(60), "h": Decimal(3600), "d": Decimal(86400)}
_MOST = 10**MOST_DIGITS
_MOST_SECONDS = 36_500 * 86_400  # a century: as a float it is exact to the millisecond


def parse_cpu(value: object) -> int:
    """Return millicores, at least 1, from `250m`, `0.25`, `1.5` or a number of cores.

    >>> parse_cpu("250m"), parse_cpu("1.5"), parse_cpu(2)
    (250, 1500, 2000)
    """
    whole, fraction, suffix = _split(value, "a cpu amount", "250m or 1.5")
    if suffix not in ("", "m"):
        raise ValueError(
            f"'{_shown(value)}' is not a cpu amount: '{suffix}' is no unit of cpu; write for example 250m or 1.5"
        )
    millicores = Decimal(f"{whole}.{fraction or '0'}") * (1 if suffix == "m" else 1000)
    return _whole_amount(value, millicores, "a cpu amount finer than 1m can't be kept", least="1m")


def render_cpu(millicores: int) -> str:
    """Return whole cores as a plain number, else millicores.

    >>> render_cpu(250), render_cpu(2000)
    ('250m', '2')
    """
    return str(millicores // 1000) if millicores % 1000 == 0 else f"{millicores}m"


def parse_bytes(value: object) -> int:
    """Return bytes, at least 1, from `64Mi`, `1G`, `1.5Gi` or a number of bytes.

    >>> parse_bytes("64Mi"), parse_bytes("1G"), parse_bytes(4096)
    (67108864, 1000000000, 4096)
    """
    whole, fraction, suffix = _split(value, "an amount of memory", "64Mi or 1G")
    if suffix not in _SUFFIXES:
        near = next((s for s in _SUFFIXES if s and s.lower() == suffix.lower().rstrip("b")), "Mi")
        raise ValueError(
            f"'{_shown(value)}' is not an amount of memory: '{suffix}' is no unit; did you mean {whole}{near}? "
            f"Units are k M G T P (thousands) and Ki Mi Gi Ti Pi (1024s)"
        )
    amount = Decimal(f"{whole}.{fraction or '0'}") * _SUFFIXES[suffix]
    return _whole_amount(value, amount, "it isn't a whole number of bytes", least="1")


def render_bytes(amount: int) -> str:
    """Return the amount in the largest unit that divides it, binary units first.

    >>> render_bytes(67108864), render_bytes(1_500_000_000), render_bytes(1536)
    ('64Mi', '1500M', '1536')
    """
    for suffixes, least in ((("Pi", "Ti", "Gi", "Mi", "Ki"), 4096), (("P", "T", "G", "M", "k"), 1)):
        for suffix in suffixes:
            unit = _SUFFIXES[suffix]
            if amount >= max(unit, least) and amount % unit == 0:
                return f"{amount // unit}{suffix}"
    return str(amount)


def parse_duration(value: object) -> float:
    """Return seconds from `10s`, `1m30s`, `500ms`, or 0. A bare number has no unit and is refused.

    >>> parse_duration("1m30s"), parse_duration("500ms"), parse_duration(0)
    (90.0, 0.5, 0.0)
    """
    if value == 0 and not isinstance(value, bool):
        return 0.0
    text = value if isinstance(value, str) else ""
    total, position = Decimal(0), 0
    while match := _DURATION_PART.match(text, position):
        total += Decimal(match[1]) * _SECONDS[match[2]]
        position = match.end()
    if not text or position != len(text):
        hint = f"; did you mean {value}s?" if _BARE_NUMBER.fullmatch(str(value)) else ""
        raise ValueError(f"'{_shown(value)}' is not a duration: write for example 10s, 1m30s or 500ms{hint}")
    if total > _MOST_SECONDS:
        raise ValueError(f"'{_shown(value)}' is too long a duration: the most is 36500d")
    if total * 1000 != (total * 1000).to_integral_value():
        raise ValueError(f"'{_shown(value)}' is too fine a duration: the finest is 1ms")
    return float(total)


def render_duration(seconds: float) -> str:
    """Return the shortest exact text, to the millisecond.

    >>> render_duration(90), render_duration(0.5), render_duration(0), render_duration(3600)
    ('1m30s', '500ms', '0s', '1h')
    """
    rest, parts = round(seconds * 1000), []
    for unit in ("d", "h", "m", "s", "ms"):
        size = int(_SECONDS[unit] * 1000)
        if rest >= size:
            parts.append(f"{rest // size}{unit}")
            rest %= size
    return "".join(parts) or "0s"


def _split(value: object, what: str, example: str) -> tuple[str, str | None, str]:
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise ValueError(f"'{_shown(value)}' is not {what}: write for example {example}")
    match = _AMOUNT.fullmatch(str(value))
    if match is None:
        raise ValueError(
            f"'{_shown(value)}' is not {what}: write for example {example} (at most {MOST_DIGITS} digits, no exponent)"
        )
    return match[1], match[2], match[3]


def _shown(value: object) -> str:
    text = str(value)
    return text if len(text) <= 40 else f"{text[:40]}…"


def _whole_amount(value: object, amount: Decimal, why: str, *, least: str) -> int:
    if amount < 1:
        raise ValueError(f"'{_shown(value)}' is too small: the least is {least}")
    if amount != amount.to_integral_value():
        raise ValueError(f"'{_shown(value)}' is too fine: {why}")
    if amount >= _MOST:
        raise ValueError(f"'{_shown(value)}' is too large: the most is {MOST_DIGITS} digits")
    return int(amount)
