"""Plain values under their keys → Config: every key, its type, its bounds and its default. No I/O.

`config/replicator.yaml` shows the same to people; a test holds the two together.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal, TypeAlias, get_args

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    SecretStr,
    SerializerFunctionWrapHandler,
    field_serializer,
    model_validator,
)

from replicator.settings import spans, values

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
OptionalBaseUrl: TypeAlias = Annotated[str | None, BeforeValidator(values.optional(spans.base_url))]
OptionalSecret: TypeAlias = Annotated[SecretStr | None, BeforeValidator(spans.optional_secret)]
OptionalPem: TypeAlias = Annotated[SecretStr | None, BeforeValidator(spans.optional_pem)]
AdminTokens: TypeAlias = Annotated[
    tuple[Annotated[SecretStr, BeforeValidator(spans.admin_token)], ...], BeforeValidator(values.several)
]
OptionalTable: TypeAlias = Annotated[str | None, BeforeValidator(values.optional(spans.table))]
Flag: TypeAlias = Annotated[bool, BeforeValidator(values.flag)]
Text: TypeAlias = Annotated[str, BeforeValidator(values.text)]
Url: TypeAlias = Annotated[str, BeforeValidator(values.url)]

#: A section whose every key is commented out has its defaults.
MAY_BE_EMPTY = BeforeValidator(values.entries)
NO_DSN = SecretStr("")
#: Begins the name of a file that systemd puts into a folder of its own.
CREDENTIAL = "credential:"
#: Where a credential comes from, for who misses one.
LOADED = "systemd gives it to a unit that says LoadCredential={name}:FILE"


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

    batch_rows: Annotated[int, BeforeValidator(values.number_up_to(1_000_000))] = 20_000
    batch_bytes: Annotated[int, BeforeValidator(values.number_up_to(1 << 30))] = 16 << 20
    # Far below wal_sender_timeout: the source wants to hear from us in between.
    batch_ms: Annotated[int, BeforeValidator(values.number_up_to(10_000))] = 100
    row_bytes: Annotated[int, BeforeValidator(values.number_up_to(1 << 28))] = 15_000_000


class RunKeys(Section):
    """How the process itself behaves."""

    stop_timeout_s: Annotated[int, BeforeValidator(spans.seconds(1, 3600))] = Field(
        default=20, alias="stop_timeout"
    )
    log_level: Literal["debug", "info", "warning", "error"] = "info"


class CompactKeys(Section):
    """How history is kept short."""

    every_s: Annotated[int, BeforeValidator(spans.seconds(10, 7 * 86_400))] = Field(
        default=600, alias="every"
    )


Texts: TypeAlias = Annotated[tuple[Text, ...], BeforeValidator(values.several)]
Jwks: TypeAlias = Annotated[tuple[Jwk, ...], BeforeValidator(values.several)]
Urls: TypeAlias = Annotated[tuple[Url, ...], BeforeValidator(values.several)]


class SupabaseKeys(Section):
    """A project whose tokens are accepted; with nothing given, the one the source's DSN names."""

    project_url: OptionalBaseUrl = None
    secret: OptionalSecret = None
    secret_file: OptionalText = None


OptionalSupabase: TypeAlias = Annotated[SupabaseKeys | None, BeforeValidator(spans.section_or_flag)]


class _Trust(Section):
    """Whose tokens are accepted."""

    audience: Texts = ()
    keys: Jwks = ()
    jwks_uri: Urls = ()
    #: None: written as `false`.
    supabase: OptionalSupabase = None

    @field_serializer("supabase", mode="wrap")
    def _as_written(self, value: SupabaseKeys | None, dump: SerializerFunctionWrapHandler) -> Any:
        return False if value is None else dump(value)


class UpstreamKeys(_Trust):
    """The app's own login, whose tokens POST /token takes."""

    issuer: OptionalText = None
    firebase: OptionalText = None

    @property
    def is_empty(self) -> bool:
        return not (self.keys or self.jwks_uri or self.supabase or self.firebase)


class SubjectKeys(Section):
    """Where the source says who somebody is whom the login knows by another name."""

    table: OptionalTable = None
    match: OptionalText = None
    value: OptionalText = None

    @model_validator(mode="after")
    def _all_or_none(self) -> SubjectKeys:
        if len({self.table is None, self.match is None, self.value is None}) > 1:
            raise ValueError("table, match and value are given together, or none of them")
        return self


class TokenKeys(Section):
    """Tokens of our own."""

    key: OptionalPem = None
    key_file: OptionalText = None
    url: OptionalBaseUrl = None
    lifetime_s: Annotated[int, BeforeValidator(spans.seconds(60, 86_400))] = Field(
        default=8 * 3600, alias="lifetime"
    )
    claims: Texts = ()
    upstream: Annotated[UpstreamKeys, MAY_BE_EMPTY] = UpstreamKeys()
    subject: Annotated[SubjectKeys, MAY_BE_EMPTY] = SubjectKeys()


class SyncKeys(_Trust):
    """Who may read buckets, and where."""

    listen: Annotated[str, BeforeValidator(values.address)] = "127.0.0.1:8080"
    tls_cert_file: OptionalText = None
    tls_key_file: OptionalText = None
    without_tls: Literal["loopback", "behind_proxy", "anywhere"] = "loopback"
    max_connections: Annotated[int, BeforeValidator(values.number_up_to(1_000_000))] = 2000
    max_connections_per_user: Annotated[int, BeforeValidator(values.number_up_to(1_000_000))] = 100
    max_buckets: Annotated[int, BeforeValidator(values.number_up_to(10_000))] = 1000
    max_results: Annotated[int, BeforeValidator(values.number_up_to(100_000))] = 1000
    max_age_s: Annotated[int, BeforeValidator(spans.seconds(60, 30 * 86_400))] = Field(
        default=86_400, alias="max_age"
    )
    clock_tolerance_s: Annotated[int, BeforeValidator(spans.seconds(0, 600))] = Field(
        default=60, alias="clock_tolerance"
    )
    jwks_plain_http: Flag = False
    jwks_private: Flag = True
    #: Who may ask about everybody, and administer; none: nobody.
    admin_tokens: AdminTokens = ()
    #: Who may read /metrics, besides them.
    scrape_tokens: AdminTokens = ()
    token: Annotated[TokenKeys, MAY_BE_EMPTY] = TokenKeys()

    @model_validator(mode="after")
    def _both_or_none(self) -> SyncKeys:
        if (self.tls_cert_file is None) != (self.tls_key_file is None):
            raise ValueError("tls_cert_file and tls_key_file are given together, or none of them")
        return self

    @property
    def host(self) -> str:
        """Without the brackets of an IPv6 address."""
        return self.listen.rpartition(":")[0].strip("[]")

    @property
    def port(self) -> int:
        return int(self.listen.rpartition(":")[2])

    @property
    def is_exposed(self) -> bool:
        """Whether others could read tokens and rows on their way, and nobody has said that this is meant."""
        is_meant = self.tls_cert_file is not None or self.without_tls != "loopback"
        return not is_meant and not values.is_loopback(self.host)


class EhrKeys(Section):
    """The record system that clinical changes go to."""

    mapping_path: FilePath = Field(default=Path("ehr.yaml"), alias="mapping")
    #: None: no worker.
    url: OptionalUrl = None
    auth: Secrets = {}
    #: None: the authorities that this machine trusts.
    ca_file: OptionalText = None
    concurrency: Annotated[int, BeforeValidator(values.number_up_to(256))] = 16
    #: None: as many as the server takes.
    rate: Annotated[int | None, BeforeValidator(spans.optional_rate)] = None
    timeout_s: Annotated[int, BeforeValidator(spans.seconds(1, 600))] = Field(default=60, alias="timeout")
    lease_s: Annotated[int, BeforeValidator(spans.seconds(5, 3600))] = Field(default=60, alias="lease")
    keep_s: Annotated[int, BeforeValidator(spans.seconds(0, 10 * 366 * 86_400))] = Field(
        default=30 * 86_400, alias="keep"
    )


class Config(Section):
    """Everything an operator decides."""

    source: Annotated[SourceKeys, MAY_BE_EMPTY] = SourceKeys()
    storage: Annotated[StorageKeys, MAY_BE_EMPTY] = StorageKeys()
    replicate: Annotated[ReplicateKeys, MAY_BE_EMPTY] = ReplicateKeys()
    compact: Annotated[CompactKeys, MAY_BE_EMPTY] = CompactKeys()
    run: Annotated[RunKeys, MAY_BE_EMPTY] = RunKeys()
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
        mapping_path = folder / self.ehr.mapping_path
        ehr = _files_beside(self.ehr, folder).model_copy(update={"mapping_path": mapping_path})
        sync = _files_beside(self.sync, folder)
        return self.model_copy(
            update={"rules_path": folder / self.rules_path, "sync": sync, "ehr": ehr},
        )


def _files_beside(section: Section, folder: Path) -> Section:
    """The same with every `…_file` in it taken from `folder`, but for the credentials of systemd."""
    moved: dict[str, object] = {}
    for name, value in section:
        if isinstance(value, Section):
            moved[name] = _files_beside(value, folder)
        elif name.endswith("_file") and isinstance(value, str) and not value.startswith(CREDENTIAL):
            moved[name] = str(folder / value)
    return section.model_copy(update=moved)


def names(model: type[Section]) -> dict[str, type[Section] | None]:
    """The keys of a section as a file writes them; a section's own class where the value is one."""
    fields = model.model_fields.items()
    return {field.alias or name: _section(field.annotation) for name, field in fields}


def _section(annotation: Any) -> type[Section] | None:
    for kind in (annotation, *get_args(annotation)):
        if isinstance(kind, type) and issubclass(kind, Section):
            return kind
    return None


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
