"""Configs: versioned content behind a stable name, which containers get as a file or in their environment."""

from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from manifests.base import Metadata, Model, Text, Timestamp, checked_text

MOST_CONFIG_CHARACTERS = 64 * 1024


class ConfigSpec(Model):
    data: Annotated[str, AfterValidator(checked_text), Field(max_length=MOST_CONFIG_CHARACTERS)]


class Config(Model):
    api_version: Literal["wherry/v1"]
    kind: Literal["Config"]
    metadata: Metadata
    spec: ConfigSpec


class ConfigRecord(Model):
    """A config as the store keeps it: its present content, and the number of that version of it."""

    uid: str
    version: int
    created_s: Timestamp = Field(alias="createdAt")
    config: Config
    changed_by: str = ""  # who made the last change, in words


class ConfigVersionRecord(Model):
    """Immutable content; versions of workloads name it by its number."""

    uid: str
    version: int
    created_s: Timestamp = Field(alias="createdAt")
    data: Text
