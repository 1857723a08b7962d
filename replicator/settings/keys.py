"""Plain values under their keys → Config: every key, its type, its bounds and its default. No I/O.

`config/replicator.yaml` shows the same to people; a test holds the two together.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal, TypeAlias

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, SecretStr

from replicator.settings import values

Dsn: TypeAlias = Annotated[SecretStr, BeforeValidator(values.dsn)]
FilePath: TypeAlias = Annotated[Path, BeforeValidator(values.path)]
Jwk: TypeAlias = Annotated[
    dict[str, Annotated[SecretStr, BeforeValidator(values.secret)]],
    AfterValidator(values.json_web_key),
]
Secrets: TypeAlias = Annotated[
    dict[str, Annotated[SecretStr, BeforeValidator(values.secret)]],
    BeforeValidator(values.entries),
]
OptionalText: TypeAlias = Annotated[str | None, BeforeValidator(values.optional(values.text))]
OptionalUrl: TypeAlias = Annotated[str | None, BeforeValidator(values.optional(values.url))]
SchemaName: TypeAlias = Annotated[str, BeforeValidator(values.identifier)]
Text: TypeAlias = Annotated[str, BeforeValidator(values.text)]
Url: TypeAlias = Annotated[str, BeforeValidator(values.url)]

#: A section whose every key is commented out has its defaults.
MAY_BE_EMPTY = BeforeValidator(values.entries)
NO_DSN = SecretStr("")


class Section(BaseModel):
    """Values that do not change and keys that are all known."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)


class SourceKeys(Section):
    """The database whose changes are read."""

    #: Never empty after `load`: the key, the file, or the variable SOURCE_DSN.
    dsn: Dsn = NO_DSN
    dsn_file: OptionalText = None
    publication: Annotated[str, BeforeValidator(values.publication)] = "powersync"
    slot: Annotated[str, BeforeValidator(values.slot)] = "replicator"
    on_slot_loss: Literal["stop", "resync"] = "stop"


class StorageKeys(Section):
    """Where buckets, jobs and the checkpoint are kept."""

    #: Empty: the source database. `Config.storage_dsn` has settled that.
    dsn: Dsn = NO_DSN
    dsn_file: OptionalText = None
    # BaseModel has a `schema` of its own.
    schema_name: SchemaName = Field(default="replicator", alias="schema")


class ReplicateKeys(Section):
    """How much is stored in one transaction; whichever is reached first."""

    batch_rows: Annotated[int, BeforeValidator(values.number_up_to(1_000_000))] = 5000
    batch_bytes: Annotated[int, BeforeValidator(values.number_up_to(1 << 30))] = 8 << 20
    # Far below wal_sender_timeout: the source wants to hear from us in between.
    batch_ms: Annotated[int, BeforeValidator(values.number_up_to(10_000))] = 50


class SyncKeys(Section):
    """Who may read buckets, and where."""

    listen: Annotated[str, BeforeValidator(values.address)] = "127.0.0.1:8080"
    audience: Annotated[tuple[Text, ...], BeforeValidator(values.several)] = ()
    keys: Annotated[tuple[Jwk, ...], BeforeValidator(values.several)] = ()
    jwks_uri: Annotated[tuple[Url, ...], BeforeValidator(values.several)] = ()
    supabase: Annotated[bool, BeforeValidator(values.flag)] = False

    @property
    def host(self) -> str:
        """Without the brackets of an IPv6 address."""
        return self.listen.rpartition(":")[0].strip("[]")

    @property
    def port(self) -> int:
        return int(self.listen.rpartition(":")[2])


class EhrKeys(Section):
    """The record system that clinical changes go to."""

    mapping_path: FilePath = Field(default=Path("ehr.yaml"), alias="mapping")
    #: None: no worker.
    url: OptionalUrl = None
    auth: Secrets = {}


class Config(Section):
    """Everything an operator decides."""

    source: Annotated[SourceKeys, MAY_BE_EMPTY] = SourceKeys()
    storage: Annotated[StorageKeys, MAY_BE_EMPTY] = StorageKeys()
    replicate: Annotated[ReplicateKeys, MAY_BE_EMPTY] = ReplicateKeys()
    rules_path: FilePath = Field(default=Path("rules.yaml"), alias="rules")
    sync: Annotated[SyncKeys, MAY_BE_EMPTY] = SyncKeys()
    ehr: Annotated[EhrKeys, MAY_BE_EMPTY] = EhrKeys()

    @property
    def source_dsn(self) -> str:
        return self.source.dsn.get_secret_value()

    @property
    def storage_dsn(self) -> str:
        return self.storage.dsn.get_secret_value() or self.source_dsn

    def beside(self, folder: Path) -> Config:
        """The same with its relative paths taken from `folder`."""
        ehr = self.ehr.model_copy(update={"mapping_path": folder / self.ehr.mapping_path})
        return self.model_copy(update={"rules_path": folder / self.rules_path, "ehr": ehr})


def names(model: type[Section]) -> dict[str, type[Section] | None]:
    """The keys of a section as a file writes them; a section's own class where the value is one."""
    found: dict[str, type[Section] | None] = {}
    for name, field in model.model_fields.items():
        is_section = isinstance(field.default, Section)
        found[field.alias or name] = type(field.default) if is_section else None
    return found


def effective(config: Config) -> dict[str, object]:
    """What is in force, by the file's keys, every secret as "***": for `--json`."""
    return {name: _plain(value) for name, value in config.model_dump(by_alias=True).items()}


def _plain(value: object) -> object:
    match value:
        case SecretStr():
            return "***" if value.get_secret_value() else None
        case Path():
            return str(value)
        case dict():
            return {str(name): _plain(item) for name, item in value.items()}
        case tuple():
            return [_plain(item) for item in value]
    return value
