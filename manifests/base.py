"""What all models share: frozen, strict on what people write, camelCase outside and units in the names inside."""

import re
from datetime import UTC, datetime
from typing import Annotated, Any, Self

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, PlainSerializer
from pydantic.alias_generators import to_camel

from manifests.quantities import parse_bytes, parse_cpu, parse_duration, render_bytes, render_cpu, render_duration

_NAME = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")
_LABEL_KEY = re.compile(r"[A-Za-z0-9]([-A-Za-z0-9_./]{0,126}[A-Za-z0-9])?")
_LABEL_VALUE = re.compile(r"([A-Za-z0-9]([-A-Za-z0-9_.:]{0,126}[A-Za-z0-9])?)?")


class FieldError(ValueError):
    """A rule over several fields that doesn't hold, raised by a model's validator at the field that is to be mended."""

    def __init__(self, path: tuple[str | int, ...], message: str) -> None:
        super().__init__(message)
        self.path = path


class Model(BaseModel):
    """A frozen record. Unknown fields are errors where people write them; `read` lets a newer peer's pass."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        alias_generator=to_camel,
        validate_by_name=True,
        validate_by_alias=True,
        serialize_by_alias=True,
        allow_inf_nan=False,
    )

    @classmethod
    def read(cls, data: bytes | str) -> Self:
        """Return the model from stored or sent JSON, ignoring fields that a newer version wrote."""
        return cls.model_validate_json(data, extra="ignore")

    def to_bytes(self) -> bytes:
        """Return JSON for the store or the wire, with defaults spelled out: a later default must not change it."""
        return self.model_dump_json(exclude_none=True).encode()

    def to_json(self) -> dict[str, Any]:
        """Return the whole record as JSON values, for the API."""
        return self.model_dump(mode="json")


def _checked_name(name: str) -> str:
    if not _NAME.fullmatch(name):
        raise ValueError(
            f"'{name[:80]}' is not a name: use 1 to 63 of a-z, 0-9 and '-', beginning and ending with a letter or digit"
        )
    return name


def _checked_label_key(key: str) -> str:
    if not _LABEL_KEY.fullmatch(key):
        raise ValueError(f"'{key[:80]}' is not a label key: use up to 128 letters, digits, '-', '_', '.' and '/'")
    return key


def checked_label_value(value: object) -> str:
    if isinstance(value, bool) or not isinstance(value, str | int):
        shown = str(value).lower() if isinstance(value, bool) else str(value)[:80]
        raise ValueError(f"a label's value is text: put {shown} in quotes")
    if not _LABEL_VALUE.fullmatch(str(value)):
        raise ValueError(f"'{str(value)[:80]}' is not a label value: use up to 128 letters, digits, '-', '_', '.', ':'")
    return str(value)


def checked_text(text: str) -> str:
    """Refuse control characters, and those which reorder text on a screen, so that what is shown is what is meant."""
    bad = next(
        (
            c
            for c in text
            if (ord(c) < 32 and c not in "\n\t") or c in "\x7f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069"
        ),
        None,
    )
    if bad is not None:
        raise ValueError(f"the character U+{ord(bad):04X} is not allowed here")
    return text


def _parse_timestamp(value: object) -> object:
    return datetime.fromisoformat(value).timestamp() if isinstance(value, str) else value


def render_timestamp(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


Text = Annotated[str, AfterValidator(checked_text)]
Name = Annotated[str, AfterValidator(_checked_name)]
LabelKey = Annotated[str, AfterValidator(_checked_label_key)]
LabelValue = Annotated[str, BeforeValidator(checked_label_value)]
Labels = dict[LabelKey, LabelValue]
Cpu = Annotated[int, BeforeValidator(parse_cpu), PlainSerializer(render_cpu, return_type=str)]
Bytes = Annotated[int, BeforeValidator(parse_bytes), PlainSerializer(render_bytes, return_type=str)]
Duration = Annotated[float, BeforeValidator(parse_duration), PlainSerializer(render_duration, return_type=str)]
Flag = Annotated[bool, Field(strict=True)]  # true or false, and neither "yes" nor 1
Port = Annotated[int, Field(strict=True, ge=1, le=65535)]
Count = Annotated[int, Field(strict=True, ge=0, le=10_000)]
Timestamp = Annotated[
    float, BeforeValidator(_parse_timestamp), PlainSerializer(render_timestamp, return_type=str, when_used="json")
]  # seconds since the epoch here, RFC 3339 outside


class Metadata(Model):
    """What every manifest has: by its name, kind and namespace it is found again."""

    name: Name
    namespace: Name = "default"
    labels: Labels = Field(default_factory=dict)
