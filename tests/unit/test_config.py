"""replicator.yaml and the environment → Config, or every problem with its place and remedy."""

from __future__ import annotations

import json
import re
import stat
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
import yaml
from hypothesis import example, given
from hypothesis import strategies as st

from replicator.config import EXPOSED, Config, effective, load
from replicator.errors import ConfigError
from replicator.settings.keys import SupabaseKeys, names
from replicator.text import nodes as yaml_nodes
from replicator.text.nodes import Document, Problems, parse

REFERENCE = Path(__file__).parents[2] / "config" / "replicator.yaml"
DSN = "postgresql://clinic:s3cret@db.internal:5433/clinic"
SOURCE = {"SOURCE_DSN": DSN}

Load = Callable[..., Config]


@pytest.fixture
def written(tmp_path: Path) -> Load:
    """Load a text as tmp_path/replicator.yaml; SOURCE_DSN is set unless said otherwise."""

    def load_text(text: str, environ: Mapping[str, str] = SOURCE) -> Config:
        path = tmp_path / "replicator.yaml"
        path.write_bytes(text.encode())
        return load(path, environ)

    return load_text


@pytest.fixture
def problems(written: Load, tmp_path: Path) -> Callable[..., list[str]]:
    """The lines of the error a text leads to, without the folder."""

    def lines(text: str, environ: Mapping[str, str] = SOURCE) -> list[str]:
        with pytest.raises(Problems) as raised:
            written(text, environ)
        assert raised.value.exit_code == 2
        return [line.replace(f"{tmp_path}/", "") for line in raised.value.what.splitlines()]

    return lines


def without_place(line: str) -> str:
    return re.sub(r"^replicator\.yaml:\d+:\d+: ", "", line)


# The reference.


@pytest.mark.parametrize("environ", [SOURCE, SOURCE | {"STORAGE_DSN": "dbname=storage"}])
def test_the_reference_holds_the_defaults(environ: dict[str, str]) -> None:
    assert load(REFERENCE, environ) == load(None, environ).beside(REFERENCE.parent)


def test_the_reference_with_its_own_variables_has_the_models_defaults() -> None:
    shown, models = effective(load(REFERENCE, SOURCE)), effective(Config().beside(REFERENCE.parent))
    assert shown["source"] == {**section(models, "source"), "dsn": "***"}
    assert {**shown, "source": None} == {**models, "source": None}


def test_every_key_stands_in_the_reference_and_nothing_else() -> None:
    document = parse(re.sub(r"\$\{.*?\}", "x", REFERENCE.read_text()), "reference")
    assert keys_of(document, document.root) == {
        name: set(names(model)) if model else None for name, model in names(Config).items()
    }


def test_every_key_of_the_reference_has_one_comment() -> None:
    for line in REFERENCE.read_text().splitlines():
        assert line == "" or line.startswith("#") or re.search(r"\S +# \S", line), line


def keys_of(document: Document, node: yaml.MappingNode) -> dict[str, set[str] | None]:
    found: dict[str, set[str] | None] = {}
    for entry in document.entries(node):
        is_section = isinstance(entry.value, yaml.MappingNode) and entry.value.value
        found[entry.name] = {key.value for key, _ in entry.value.value} if is_section else None
    return found


def section(facts: dict[str, object], name: str) -> dict[str, object]:
    found = facts[name]
    assert isinstance(found, dict)
    return found


# What is read.


def test_the_flow_form_with_variables(written: Load) -> None:
    config = written(
        "source:   {dsn: ${SOURCE_DSN}, publication: powersync, slot: replicator}\n"
        "storage:  {dsn: ${STORAGE_DSN}, schema: replicator}\n"
        "rules:    rules.yaml\n"
        "sync:     {listen: 127.0.0.1:8080, audience: [], keys: [], jwks_uri: null, supabase: false}\n"
        "ehr:      {mapping: ehr.yaml, url: null, auth: {}}\n"
    )
    assert (config.source_dsn, config.storage_dsn) == (DSN, DSN)


def test_every_key_has_an_effect(written: Load, tmp_path: Path) -> None:
    config = written(
        "source: {dsn: host=a, publication: 'Übung', slot: clinic_1}\n"
        "storage: {dsn: dbname=b, schema: _s1}\n"
        "replicate: {batch_rows: 1, batch_bytes: '1073741824', batch_ms: 10000}\n"
        "rules: /etc/rules.yaml\n"
        "sync:\n"
        "  listen: '[::1]:0'\n"
        "  audience: one\n"
        "  keys: [{kty: oct, k: abc, kid: 2024}]\n"
        "  jwks_uri: [https://a/keys, http://b:81]\n"
        "  supabase: TRUE\n"
        "  max_age: 7d\n"
        "  clock_tolerance: 0s\n"
        "  jwks_plain_http: true\n"
        "  jwks_private: false\n"
        "  token:\n"
        "    {key_file: a/key.pem, url: https://sync/, lifetime: 90m, claims: [role],\n"
        "     upstream: {firebase: clinic, supabase: {project_url: https://p, secret_file: credential:s},\n"
        "                keys: [{kty: oct}], jwks_uri: https://l, audience: app, issuer: https://l/},\n"
        "     subject: {table: public.users, match: uid, value: id}}\n"
        "ehr: {mapping: ../ehr.yaml, url: https://ehr/rest, auth: {user: u, password: p}, concurrency: 4,\n"
        "      rate: 20, timeout: 5s, lease: 2m, keep: 0s}\n"
    )
    assert (config.source_dsn, config.storage_dsn) == ("host=a", "dbname=b")
    assert (config.source.publication, config.source.slot) == ("Übung", "clinic_1")
    assert config.storage.schema_name == "_s1"
    assert config.replicate.model_dump() == {
        "batch_rows": 1,
        "batch_bytes": 1073741824,
        "batch_ms": 10000,
        "row_bytes": 15_000_000,
    }
    assert config.rules_path == Path("/etc/rules.yaml")
    assert (config.sync.host, config.sync.port) == ("::1", 0)
    assert config.sync.audience == ("one",)
    assert [key["kid"].get_secret_value() for key in config.sync.keys] == ["2024"]
    assert config.sync.jwks_uri == ("https://a/keys", "http://b:81")
    assert config.sync.supabase == SupabaseKeys()
    assert (config.sync.max_age_s, config.sync.clock_tolerance_s) == (7 * 86_400, 0)
    assert (config.sync.jwks_plain_http, config.sync.jwks_private) == (True, False)
    token = config.sync.token
    assert (token.key_file, token.url) == (str(tmp_path / "a/key.pem"), "https://sync")
    assert (token.lifetime_s, token.claims) == (5400, ("role",))
    upstream = token.upstream
    assert upstream.supabase == SupabaseKeys(project_url="https://p", secret_file="credential:s")
    assert (upstream.firebase, len(upstream.keys), upstream.jwks_uri) == ("clinic", 1, ("https://l",))
    assert (upstream.audience, upstream.issuer) == (("app",), "https://l/")
    assert token.subject.model_dump() == {"table": "public.users", "match": "uid", "value": "id"}
    assert config.ehr.mapping_path == tmp_path / "../ehr.yaml"
    assert config.ehr.url == "https://ehr/rest"
    assert config.ehr.auth["password"].get_secret_value() == "p"
    assert (config.ehr.concurrency, config.ehr.rate) == (4, 20)
    assert (config.ehr.timeout_s, config.ehr.lease_s, config.ehr.keep_s) == (5, 120, 0)


@pytest.mark.parametrize("text", ["", "source:\n", "source: {}\nsync: ~\nehr:\n", "# nothing\n", "\ufeff"])
def test_what_is_left_out_has_its_default(written: Load, tmp_path: Path, text: str) -> None:
    assert written(text) == load(None, SOURCE).beside(tmp_path)


def test_empty_text_is_no_value_where_there_need_be_none(written: Load) -> None:
    config = written(
        "sync: {audience: '${A:-}', keys: '', jwks_uri: ${A:-}}\nehr: {url: ${A:-}, auth: ~}\n"
        "storage: {dsn: ${STORAGE_DSN:-}, dsn_file: ''}\n"
    )
    assert (config.sync.audience, config.sync.keys, config.sync.jwks_uri) == ((), (), ())
    assert (config.ehr.url, config.ehr.auth, config.storage_dsn) == (None, {}, DSN)


def test_values_at_their_bounds(written: Load) -> None:
    text = (
        f"source: {{slot: {'s' * 63}, publication: {'ü' * 31}x}}\nstorage: {{schema: {'s' * 63}}}\n"
        "replicate: {batch_rows: 1000000, batch_bytes: 1073741824, batch_ms: 1}\n"
        "sync: {listen: localhost:65535}\n"
    )
    config = written(text + "#" * (1024 * 1024 - len(text.encode())))
    assert len(config.source.publication.encode()) == 63
    assert config.sync.port == 65535


def test_text_is_taken_as_written(written: Load) -> None:
    assert written("source: {slot: 2024, publication: 1.10}").source.publication == "1.10"
    assert written("source: {slot: '012'}").source.slot == "012"
    assert written("source: {slot: true}").source.slot == "true"
    assert written("source: {publication: 2024-01-01}").source.publication == "2024-01-01"


@pytest.mark.parametrize("pem", ["-----B-----\nabc\n-----E-----\n", "-----B-----\\nabc\\n-----E-----"])
def test_a_private_key_may_come_from_a_variable_with_its_lines(written: Load, pem: str) -> None:
    config = written("sync: {token: {key: ${KEY}}}", SOURCE | {"KEY": pem})
    assert config.sync.token.key is not None
    assert config.sync.token.key.get_secret_value() == "-----B-----\nabc\n-----E-----\n"


def test_values_cannot_be_changed_afterwards() -> None:
    config = load(None, SOURCE)
    with pytest.raises(ValueError, match="frozen"):
        config.source.slot = "other"


# Which file.


def test_the_argument_comes_before_the_variable_and_that_before_the_defaults(tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / name).write_text(f"source: {{slot: {name}}}")
    environ = SOURCE | {"REPLICATOR_CONFIG": str(tmp_path / "two")}
    assert load(tmp_path / "one", environ).source.slot == "one"
    assert load(None, environ).source.slot == "two"
    assert load(None, SOURCE | {"REPLICATOR_CONFIG": ""}).source.slot == "replicator"


def test_a_file_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"missing\.yaml: cannot be read: No such file") as raised:
        load(tmp_path / "missing.yaml", {})
    assert "REPLICATOR_CONFIG" in raised.value.hint
    with pytest.raises(ConfigError, match="cannot be read: Is a directory"):
        load(tmp_path, {})
    with pytest.raises(ConfigError, match="cannot be read: not a path"):
        load(Path("a\0b"), {})
    (tmp_path / "latin").write_bytes(b"a: 1\n# caf\xe9\n")
    with pytest.raises(ConfigError, match="latin:2: not UTF-8"):
        load(tmp_path / "latin", {})
    (tmp_path / "large").write_bytes(b"#" * (1024 * 1024 + 1))
    with pytest.raises(ConfigError, match="large: larger than 1 MiB"):
        load(tmp_path / "large", {})


# Every message.

URL = "must be an address such as https://host/path"
ADDRESS = "must be host:port, such as 127.0.0.1:8080, 0.0.0.0:8080 or [::1]:8080"
SLOT = "a slot's name is a-z, 0-9 and _, at most 63 of them, such as clinic_1"
SCHEMA = "a schema's name here is a-z, 0-9 and _, at most 63, not a digit first"
FORMS = "the forms are postgresql://user@host:5432/database or host=… user=… dbname=…"
ENCODE = "the host or the port cannot be meant; in a password write @ as %40, / as %2F, : as %3A and % as %25"
REFERENCES = "the forms are ${NAME} and ${NAME:-default}"
MAPPING = "must be a mapping: lines of the form `key: value`"
WHOLE = "must be a whole number in plain digits"

REFUSED = {
    "source: {publicaton: x}": "1:10: source.publicaton: unknown key, did you mean publication?",
    "sources: {}": "1:1: sources: unknown key, did you mean source?",
    "sync: {zzz: 1}": "1:8: sync.zzz: unknown key; what can stand here: "
    "admin_tokens, audience, clock_tolerance, jwks_plain_http, jwks_private, jwks_uri, keys, listen, "
    "max_age, max_buckets, max_connections, max_connections_per_user, max_results, scrape_tokens, supabase, "
    "tls_cert_file, tls_key_file, token, without_tls",
    "sync: {token: {key_fil: x}}": "1:16: sync.token.key_fil: unknown key, did you mean key_file?",
    "sync: {supabase: {project: x}}": "1:19: sync.supabase.project: unknown key, did you mean project_url?",
    "sync: {supabase: [x]}": f"1:18: sync.supabase: {MAPPING}",
    "sync: {token: {lifetime: 8}}": "1:26: sync.token.lifetime: "
    "must be a number and a unit: 90s, 5m, 8h or 1d",
    "sync: {token: {lifetime: 25h}}": "1:26: sync.token.lifetime: must be from 1m to 1d",
    "sync: {clock_tolerance: 11m}": "1:25: sync.clock_tolerance: must be from 0s to 10m",
    "sync: {token: {url: 'https://a/?b'}}": "1:21: sync.token.url: "
    "must be an address without ? and #, such as https://host",
    "sync: {token: {subject: {table: users}}}": "1:25: sync.token.subject: "
    "table, match and value are given together, or none of them",
    "sync: {token: {subject: {table: a.b.c, match: a, value: b}}}": "1:33: sync.token.subject.table: "
    "must be a table's name, such as users or public.users",
    "slot: x": "1:1: slot: unknown key here, did you mean source.slot?",
    "source: {schema: x}": "1:10: source.schema: unknown key here, did you mean storage.schema?",
    "ehr: {rules: x}": "1:7: ehr.rules: unknown key here, did you mean rules?",
    "storage: {schema_name: x}": "1:11: storage.schema_name: unknown key, did you mean schema?",
    "source: clinic": f"1:9: source: {MAPPING}",
    "source: [1]": f"1:9: source: {MAPPING}",
    "source: {slot: a}\nsource: {}": "2:1: source: given twice, first at 1:1",
    "source: {slot: Clinic-1}": f"1:16: source.slot: {SLOT}",
    f"source: {{slot: {'x' * 64}}}": f"1:16: source.slot: {SLOT}",
    "source: {slot: [a]}": "1:16: source.slot: must be text",
    "source: {slot: null}": "1:16: source.slot: a value is missing",
    "source: {slot: ''}": "1:16: source.slot: must not be empty",
    "source: {slot: no}": "1:16: source.slot: "
    "a boolean to YAML: write true or false, or quote it if it is text",
    f"source: {{publication: {'ü' * 32}}}": "1:23: source.publication: "
    "a publication's name has at most 63 bytes",
    'source: {publication: "a\\nb"}': "1:23: source.publication: "
    "holds a line break, a control character or bytes that are not UTF-8",
    "source: {on_slot_loss: retry}": "1:24: source.on_slot_loss: must be 'stop' or 'resync'",
    "source: {on_slot_loss: [stop]}": "1:24: source.on_slot_loss: must be 'stop' or 'resync'",
    "source: {on_slot_loss: ~}": "1:24: source.on_slot_loss: must be 'stop' or 'resync'",
    "source: {dsn: ''}": "1:15: source.dsn: "
    "no database to read from: set SOURCE_DSN, or write dsn or dsn_file",
    "source: {dsn: {a: b}}": "1:15: source.dsn: must be text",
    "source: {dsn: clinic}": f"1:15: source.dsn: not a connection string; {FORMS}",
    "source: {dsn: ' '}": f"1:15: source.dsn: not a connection string; {FORMS}",
    'source: {dsn: "host=a\\0b"}': f"1:15: source.dsn: not a connection string; {FORMS}",
    "source: {dsn: postgres://u:p@ss@host/db}": f"1:15: source.dsn: {ENCODE}",
    "source: {dsn: postgres://u:p/s@host/db}": f"1:15: source.dsn: {ENCODE}",
    "source: {dsn: postgres://u:12/s@host/db}": f"1:15: source.dsn: {ENCODE}",
    "source: {dsn: host=a, dsn_file: b}": "1:33: source.dsn_file: "
    "dsn and dsn_file are both given: leave one out",
    "source: {dsn_file: [a]}": "1:20: source.dsn_file: must be text",
    "source: {dsn_file: postgres://u:p@h/d}": "1:20: source.dsn_file: "
    "a connection string stands where a file's path is expected: use dsn",
    "storage: {dsn_file: credential:x}": "1:21: storage.dsn_file: credential:NAME "
    "needs a name without /, and CREDENTIALS_DIRECTORY, which systemd sets",
    "storage: {dsn: host=a port=b}": f"1:16: storage.dsn: {ENCODE}",
    "storage: {schema: pg_mine}": "1:19: storage.schema: schemas named so belong to Postgres itself",
    "storage: {schema: information_schema}": "1:19: storage.schema: "
    "schemas named so belong to Postgres itself",
    "storage: {schema: 1st}": f"1:19: storage.schema: {SCHEMA}",
    "storage: {schema: My Schema}": f"1:19: storage.schema: {SCHEMA}",
    "replicate: {batch_rows: 0}": "1:25: replicate.batch_rows: must be from 1 to 1000000",
    "replicate: {batch_rows: -5}": "1:25: replicate.batch_rows: must be from 1 to 1000000",
    "replicate: {batch_bytes: 1073741825}": "1:26: replicate.batch_bytes: must be from 1 to 1073741824",
    "replicate: {batch_ms: 10001}": "1:23: replicate.batch_ms: must be from 1 to 10000",
    "replicate: {batch_ms: 0.5}": f"1:23: replicate.batch_ms: {WHOLE}",
    "replicate: {batch_ms: 1e3}": f"1:23: replicate.batch_ms: {WHOLE}",
    "replicate: {batch_ms: '012'}": f"1:23: replicate.batch_ms: {WHOLE}",
    "replicate: {batch_ms: 012}": "1:23: replicate.batch_ms: "
    "not a decimal number to YAML: write plain digits, or quote it if it is text",
    "replicate: {batch_ms: 1_000}": "1:23: replicate.batch_ms: "
    "a number with _ in it: write plain digits, or quote it if it is text",
    "replicate: {batch_ms: true}": f"1:23: replicate.batch_ms: {WHOLE}",
    "replicate:\n  batch_ms:": "2:12: replicate.batch_ms: a value is missing",
    "rules: {a: b}": "1:8: rules: must be text",
    "rules: ''": "1:8: rules: must not be empty",
    "sync: {listen: 0.0.0.0:8080}": f"1:16: sync.listen: {EXPOSED}",
    "sync: {listen: '[::]:8080'}": f"1:16: sync.listen: {EXPOSED}",
    "sync: {listen: 192.168.1.4:80}": f"1:16: sync.listen: {EXPOSED}",
    "sync: {listen: sync.clinic.example:80}": f"1:16: sync.listen: {EXPOSED}",
    "sync: {listen: '${A:-0.0.0.0}:80', without_tls: loopback}": f"1:16: sync.listen: {EXPOSED}",
    "sync: {without_tls: true}": "1:21: sync.without_tls: must be 'loopback', 'behind_proxy' or 'anywhere'",
    "sync: {tls_cert_file: a}": "1:7: sync: "
    "tls_cert_file and tls_key_file are given together, or none of them",
    "sync: {listen: 8080}": f"1:16: sync.listen: {ADDRESS}",
    "sync: {listen: ':8080'}": f"1:16: sync.listen: {ADDRESS}",
    "sync: {listen: '::1:8080'}": f"1:16: sync.listen: {ADDRESS}",
    "sync: {listen: localhost:65536}": "1:16: sync.listen: the port must be from 0 to 65535",
    "sync: {listen: 999.1.1.1:80}": "1:16: sync.listen: the host is not an IPv4 address",
    "sync: {listen: '[1.2.3.4]:80'}": "1:16: sync.listen: the host is not an IPv6 address",
    "sync: {listen: -a:80}": "1:16: sync.listen: the host cannot be meant",
    "sync: {listen: 12:30}": "1:16: sync.listen: a number to the base of 60 to YAML: quote it",
    "sync: {audience: {a: b}}": "1:18: sync.audience: must be a list, such as [a, b]",
    "sync: {audience: [a, '', b]}": "1:22: sync.audience[1]: must not be empty",
    "sync: {audience: [a, [b]]}": "1:22: sync.audience[1]: must be text",
    "sync: {keys: [a]}": "1:15: sync.keys[0]: must be a mapping, such as {name: value}",
    "sync: {keys: {kty: oct}}": "1:14: sync.keys: must be a list, such as [a, b]",
    "sync: {keys: [{kty: oct}, {k: a}]}": "1:27: sync.keys[1]: "
    "a JSON Web Key needs a kty, such as {kty: oct, kid: app, k: ${KEY}}",
    "sync: {keys: [{kty: RSA, key_ops: [a]}]}": "1:35: sync.keys[0].key_ops: must be text",
    "sync: {jwks_uri: ftp://a}": f"1:18: sync.jwks_uri: {URL}",
    "sync: {jwks_uri: [https://a, b]}": f"1:30: sync.jwks_uri[1]: {URL}",
    "sync: {jwks_uri: 'https://[a'}": f"1:18: sync.jwks_uri: {URL}",
    "sync: {supabase: yes}": "1:18: sync.supabase: "
    "a boolean to YAML: write true or false, or quote it if it is text",
    "sync: {supabase: 'yes'}": "1:18: sync.supabase: must be true or false",
    "sync: {admin_tokens: [fifteen-letters]}": "1:23: sync.admin_tokens[0]: "
    "must be 16 to 1024 letters, digits or signs, without spaces",
    "sync: {supabase: 1}": "1:18: sync.supabase: must be true or false",
    "ehr: {mapping: ~}": "1:16: ehr.mapping: a value is missing",
    "ehr: {url: ehr.example}": f"1:12: ehr.url: {URL}",
    "ehr: {url: 'http://'}": f"1:12: ehr.url: {URL}",
    "ehr: {url: 'http://a:99999'}": f"1:12: ehr.url: {URL}",
    "ehr: {url: 'http://a b'}": f"1:12: ehr.url: {URL}",
    "ehr: {url: https://u:p@a/}": "1:12: ehr.url: "
    "an address holds no user or password here; they would end up in logs",
    "ehr: {concurrency: 0}": "1:20: ehr.concurrency: must be from 1 to 256",
    "ehr: {rate: 0}": "1:13: ehr.rate: must be from 1 to 100000",
    "ehr: {lease: 1s}": "1:14: ehr.lease: must be from 5s to 1h",
    "ehr: {timeout: 1h}": "1:16: ehr.timeout: must be from 1s to 10m",
    "ehr: {keep: 30}": "1:13: ehr.keep: must be a number and a unit: 90s, 5m, 8h or 1d",
    "ehr: {auth: [a]}": "1:13: ehr.auth: must be a mapping, such as {name: value}",
    "ehr: {auth: {user: ''}}": "1:20: ehr.auth.user: must not be empty",
    "source: {slot: ${S}}": "1:16: source.slot: not set: S; or write ${S:-default}",
    "source: {slot: ${S}_${T}_${S}}": "1:16: source.slot: not set: S, T; or write ${S:-default}",
    "source: {dsn: ${S}}": "1:15: source.dsn: not set: S; or write ${S:-default}",
    "storage: {dsn: ${STORGE}}": "1:16: storage.dsn: not set: STORGE; or write ${STORGE:-default}",
    "source: {dsn_file: ${S}}": "1:20: source.dsn_file: not set: S; or write ${S:-default}",
    "source: ${S}": "1:9: source: not set: S; or write ${S:-default}",
    "sync: {jwks_uri: ${S}}": "1:18: sync.jwks_uri: not set: S; or write ${S:-default}",
    "sync: {audience: [a, ${S}]}": "1:22: sync.audience[1]: not set: S; or write ${S:-default}",
    "sync: {supabase: ${S}}": "1:18: sync.supabase: not set: S; or write ${S:-default}",
    "ehr: {auth: {password: ${S}}}": "1:24: ehr.auth.password: not set: S; or write ${S:-default}",
    "rules: ${A:-${B}}": f"1:8: rules: one ${{…}} cannot stand inside another; {REFERENCES}",
    "rules: ${}": f"1:8: rules: not a reference to a variable; {REFERENCES}, and $${{ is a plain ${{",
    "rules: ${A:+b}": f"1:8: rules: not a reference to a variable; {REFERENCES}, and $${{ is a plain ${{",
    "rules: ${A": f"1:8: rules: not a reference to a variable; {REFERENCES}, and $${{ is a plain ${{",
    "ehr: {auth: {${A}: b}}": "1:14: ehr.auth: variables are replaced in values, not in keys",
}


@pytest.mark.parametrize("text", REFUSED)
def test_refused_with_place_key_and_remedy(problems: Callable[..., list[str]], text: str) -> None:
    assert problems(text) == [f"replicator.yaml:{REFUSED[text]}"]


def test_all_problems_are_told_at_once_in_the_order_of_the_file(
    problems: Callable[..., list[str]],
) -> None:
    found = problems(
        "ehr:\n  url: x\n  auth: {a: ${NO}}\nfoo: 1\nreplicate:\n  batch_ms: 0\n  batch_rows: 0x10\n"
        "source:\n  slot: A\n  slot: b\n  dsn: ''\n"
    )
    assert [line.split(": ")[0].removeprefix("replicator.yaml:") for line in found] == [
        "2:8", "3:13", "4:1", "6:13", "7:15", "9:9", "10:3", "11:8",
    ]  # fmt: skip


def test_without_a_file_the_variable_is_named() -> None:
    with pytest.raises(Problems) as raised:
        load(None, {"STORAGE_DSN": "x=y"})
    assert raised.value.what.splitlines() == [
        "environment: SOURCE_DSN: no database to read from: set SOURCE_DSN, or write dsn or dsn_file",
        f"environment: STORAGE_DSN: not a connection string; {FORMS}",
    ]


def test_a_file_without_a_source_leads_to_the_section_that_lacks_it(
    problems: Callable[..., list[str]],
) -> None:
    nothing = "source.dsn: no database to read from: set SOURCE_DSN, or write dsn or dsn_file"
    [only] = problems("source: {dsn_file: ${S}}", {})
    assert only.startswith("replicator.yaml:1:20: source.dsn_file: not set: S;")
    assert problems("rules: a\n", {}) == [f"replicator.yaml:1:1: {nothing}"]
    assert problems("rules: a\nsource: {slot: a}\n", {}) == [f"replicator.yaml:2:1: {nothing}"]
    assert problems("rules: a\nsource:\n", {"SOURCE_DSN": "a"}) == [
        f"replicator.yaml:2:1: source.dsn: not a connection string; {FORMS} (from the variable SOURCE_DSN)"
    ]


# Variables.


@pytest.mark.parametrize(
    ("written_as", "expected"),
    [
        ("${A}", "one"),
        ("'${A}'", "one"),
        ('"${A}"', "one"),
        ("x${A}-${A}y${B:-z}", "xone-oneyz"),
        ("${EMPTY:-d}", "d"),
        ("${EMPTY}x", "x"),
        ("${NONE:-}x", "x"),
        ("${NONE:-a b: c, d] # e}", "a b: c, d] # e"),
        ("$${A}", "${A}"),
        ("$$${A}", "$${A}"),
        ("'$${'", "${"),
        ("$A $ x", "$A $ x"),
        ("${STRUCTURE}", "a: {b: [c]}\" ' # ${A}"),
        (">-\n  ${A}\n  ${A}", "one one"),
        ("${NULL}", "null"),
    ],
)
def test_references_are_replaced_wherever_text_stands(
    written: Load, tmp_path: Path, written_as: str, expected: str
) -> None:
    environ = SOURCE | {"A": "one", "EMPTY": "", "NULL": "null", "STRUCTURE": "a: {b: [c]}\" ' # ${A}"}
    assert written(f"rules: {written_as}\n", environ).rules_path == tmp_path / expected
    if "\n" not in written_as:
        assert written(f"{{rules: {written_as}, source: {{}}}}\n", environ).rules_path.name == expected


@given(value=st.text(st.characters(exclude_categories=["Cc", "Cs"]), min_size=1))
def test_a_variables_value_never_becomes_structure(value: str) -> None:
    config = load(REFERENCE, SOURCE | {"STORAGE_DSN": "host=h application_name=" + quoted(value)})
    assert config.storage_dsn == "host=h application_name=" + quoted(value)


def quoted(value: str) -> str:
    return "'" + value.replace("\\", "\\\\").replace("'", "\\'") + "'"


def test_the_type_is_the_keys_and_not_what_yaml_guesses(written: Load) -> None:
    config = written(
        "replicate: {batch_rows: ${ROWS}, batch_ms: ${MS:-70}}\nsync: {supabase: ${S}}\n"
        "source: {slot: ${SLOT}}\n",
        SOURCE | {"ROWS": "12", "S": "true", "SLOT": "007"},
    )
    assert (config.replicate.batch_rows, config.replicate.batch_ms) == (12, 70)
    assert (config.sync.supabase, config.source.slot) == (SupabaseKeys(), "007")


@pytest.mark.parametrize("value", ["1_000", "012", "0x1F", "12:30", "", "yes", "1 ", "\udcff"])
def test_a_variables_value_has_to_fit_the_type(problems: Callable[..., list[str]], value: str) -> None:
    [problem] = problems("replicate: {batch_rows: ${ROWS}}", SOURCE | {"ROWS": value})
    assert problem.startswith("replicator.yaml:1:25: replicate.batch_rows: ")


def test_references_keep_every_position(problems: Callable[..., list[str]]) -> None:
    text = "ehr: {url: '${LONG_NAME:-http://x}', zzz: 1}\nfoo: ${A:-é} # ${\nbar: 1"
    assert [line.split(": ")[0] for line in problems(text)] == [
        "replicator.yaml:1:38",
        "replicator.yaml:2:1",
        "replicator.yaml:3:1",
    ]


def test_characters_set_aside_for_references_may_stand_in_the_file(written: Load) -> None:
    config = written("source: {publication: '\ue000\uf8ff${A}'}", SOURCE | {"A": "\uf8fe"})
    assert config.source.publication == "\ue000\uf8ff\uf8fe"


def test_thousands_of_references_are_refused(written: Load) -> None:
    with pytest.raises(ConfigError, match=re.escape("too many ${…} in one file")):
        written("rules: " + "${A}" * 6401)


# Connection strings.


def test_storage_is_the_source_unless_said_otherwise(written: Load) -> None:
    assert written("").storage_dsn == DSN
    assert written("storage: {dsn: ''}", SOURCE | {"STORAGE_DSN": "host=s"}).storage_dsn == DSN
    for text in ("", "storage: {dsn: ${STORAGE_DSN}}", "storage: {dsn: ${STORAGE_DSN:-}}"):
        assert written(text, SOURCE).storage_dsn == DSN
        assert written(text, SOURCE | {"STORAGE_DSN": "host=s"}).storage_dsn == "host=s"


def test_a_connection_string_from_a_file_beside_the_configuration(written: Load, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text(f"{DSN}\n")
    assert written("source: {dsn_file: secret}", {}).source_dsn == DSN
    assert written("source: {dsn: ${SOURCE_DSN}, dsn_file: secret}", {}).source_dsn == DSN
    assert written("source: {dsn: null, dsn_file: secret}", {}).source_dsn == DSN
    config = written(f"storage: {{dsn_file: {tmp_path / 'secret'}}}", {"SOURCE_DSN": "host=a"})
    assert (config.source_dsn, config.storage_dsn) == ("host=a", DSN)


def test_a_file_named_in_the_configuration_goes_before_the_variable(written: Load, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("host=file")
    environ = {"SOURCE_DSN": "host=variable"}
    assert written("source: {dsn_file: secret}", environ).source_dsn == "host=file"


def test_a_connection_string_from_a_systemd_credential(written: Load, tmp_path: Path) -> None:
    (tmp_path / "credentials").mkdir()
    (tmp_path / "credentials" / "source").write_text(DSN)
    environ = {"CREDENTIALS_DIRECTORY": str(tmp_path / "credentials")}
    assert written("source: {dsn_file: credential:source}", environ).source_dsn == DSN


@pytest.mark.parametrize("name", ["credential:../secret", "credential:", "credential:.."])
def test_a_credentials_name_stays_in_its_folder(
    problems: Callable[..., list[str]], tmp_path: Path, name: str
) -> None:
    (tmp_path / "secret").write_text(DSN)
    environ = {"CREDENTIALS_DIRECTORY": str(tmp_path / "credentials")}
    [problem] = problems(f"source: {{dsn_file: '{name}'}}", environ)
    assert "needs a name without /" in problem


def test_a_credential_that_is_missing_says_where_it_would_come_from(
    problems: Callable[..., list[str]], tmp_path: Path
) -> None:
    [problem] = problems("source: {dsn_file: 'credential:s'}", {"CREDENTIALS_DIRECTORY": str(tmp_path)})
    assert "s: cannot be read: No such file or directory" in problem
    assert problem.endswith("LoadCredential=s:FILE")


def test_a_connection_strings_file_that_is_of_no_use(
    problems: Callable[..., list[str]], tmp_path: Path
) -> None:
    text = "source: {dsn_file: s}"
    where = "replicator.yaml:1:20: source.dsn_file: "
    assert problems(text) == [f"{where}s: cannot be read: No such file or directory"]
    (tmp_path / "s").write_text(" \n")
    assert problems(text) == [f"{where}s: is empty"]
    (tmp_path / "s").write_text("s3cret")
    assert problems(text) == [f"{where}not a connection string; {FORMS}"]
    (tmp_path / "s").write_bytes(b"\xff")
    assert problems(text) == [f"{where}s:1: not UTF-8"]
    with (tmp_path / "s").open("wb") as file:
        file.truncate(1 << 30)
    assert problems(text) == [f"{where}s: larger than 1 MiB"]
    (tmp_path / "s").unlink()
    (tmp_path / "s").mkdir(mode=stat.S_IRWXU)
    assert problems(text) == [f"{where}s: cannot be read: Is a directory"]


def test_a_reference_to_an_unset_variable_is_no_problem_where_a_file_is_named(
    written: Load, tmp_path: Path
) -> None:
    (tmp_path / "s").write_text("host=a")
    assert written("storage: {dsn: ${OTHER}, dsn_file: s}").storage_dsn == "host=a"


# Listening.


@pytest.mark.parametrize(
    "sync",
    [
        "listen: 127.0.0.1:80",
        "listen: 127.8.9.1:80",
        "listen: '[::1]:80'",
        "listen: LocalHost:80",
        "listen: 0.0.0.0:80, without_tls: behind_proxy",
        "listen: '[::]:80', without_tls: anywhere",
        "listen: sync.clinic.example:443, tls_cert_file: a.pem, tls_key_file: b.pem",
    ],
)
def test_it_listens_where_nobody_can_read_along_or_where_that_is_meant(written: Load, sync: str) -> None:
    assert not written(f"sync: {{{sync}}}").sync.is_exposed


# Secrets.

SECRETS = """
source: {dsn: 'postgresql://u:s3cret@h/d'}
storage: {dsn: 'host=h password=s3cret'}
sync: {admin_tokens: [s3cret-s3cret-s3cret], scrape_tokens: [s3cret-s3cret-s3cret],
       keys: [{kty: oct, k: s3cret}], supabase: {secret: s3cret}}
ehr: {auth: {user: s3cret, password: s3cret}}
"""


def test_no_secret_in_what_is_printed(written: Load) -> None:
    config = written(SECRETS)
    for text in (repr(config), str(config), json.dumps(effective(config))):
        assert "s3cret" not in text


def test_effective_configuration_has_the_files_keys(written: Load, tmp_path: Path) -> None:
    assert effective(written(SECRETS)) == {
        "source": {
            "dsn": "***",
            "dsn_file": None,
            "publication": "powersync",
            "slot": "replicator",
            "on_slot_loss": "stop",
        },
        "storage": {"dsn": "***", "dsn_file": None, "schema": "replicator"},
        "replicate": {"batch_rows": 20000, "batch_bytes": 16777216, "batch_ms": 100, "row_bytes": 15_000_000},
        "compact": {"every": 600},
        "run": {"stop_timeout": 20, "log_level": "info"},
        "rules": str(tmp_path / "rules.yaml"),
        "sync": {
            "listen": "127.0.0.1:8080",
            "audience": [],
            "keys": [{"kty": "***", "k": "***"}],
            "jwks_uri": [],
            "supabase": {"project_url": None, "secret": "***", "secret_file": None},
            "tls_cert_file": None,
            "tls_key_file": None,
            "without_tls": "loopback",
            "max_connections": 2000,
            "max_connections_per_user": 100,
            "max_buckets": 1000,
            "max_results": 1000,
            "max_age": 86_400,
            "clock_tolerance": 60,
            "jwks_plain_http": False,
            "jwks_private": True,
            "admin_tokens": ["***"],
            "scrape_tokens": ["***"],
            "token": {
                "key": None,
                "key_file": None,
                "url": None,
                "lifetime": 28_800,
                "claims": [],
                "upstream": {
                    "audience": [],
                    "keys": [],
                    "jwks_uri": [],
                    "supabase": False,
                    "issuer": None,
                    "firebase": None,
                },
                "subject": {"table": None, "match": None, "value": None},
            },
        },
        "ehr": {
            "mapping": str(tmp_path / "ehr.yaml"),
            "url": None,
            "auth": {"user": "***", "password": "***"},
            "ca_file": None,
            "concurrency": 16,
            "rate": None,
            "timeout": 60,
            "lease": 60,
            "keep": 30 * 86_400,
        },
    }


ALL_KEYS = [
    f"{name}.{key}" if model else name
    for name, model in names(Config).items()
    for key in (names(model) if model else [""])
]
FORMS_OF_A_SECRET = [
    "'s3cret'",
    "postgres://u:s3cret",
    "{postgres://u:s3cret@h}",
    "{dsn:s3cret}",
    "[s3cret]",
    "{u: a,s3cret}",
    "!s3cret",
    "&s3cret",
    "*s3cret",
    "'s3cret",
    "a: s3cret",
    "${X:-s3cret}",
    "${s3cret",
    "${X}",
    "|\n    s3cret\n   s3cret",
    "dsn:s3cret: 1",
]


@pytest.mark.parametrize("form", FORMS_OF_A_SECRET)
@pytest.mark.parametrize("key", ALL_KEYS)
def test_no_secret_in_any_problem_wherever_it_was_put(written: Load, key: str, form: str) -> None:
    outer, _, inner = key.partition(".")
    text = f"{outer}:\n  {inner}: {form}\n" if inner else f"{outer}: {form}\n"
    if inner == "dsn_file" and form == "'s3cret'":
        text = text.replace("s3cret", "http://s3cret")  # a path is named, if it can be one
    environ = SOURCE | {"X": "postgres://u:s3cret/@h/s3cret"}
    try:
        written(text, environ)
    except ConfigError as error:
        assert "s3cret" not in error.what + error.hint


# Anything at all.

VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.text(max_size=12)
    | st.sampled_from(["${A}", "${", "host=a", "https://a", "a:1"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)
SECTIONS = st.fixed_dictionaries(
    {},
    optional={
        name: st.fixed_dictionaries({}, optional=dict.fromkeys(names(model), VALUES)) | VALUES
        if model
        else VALUES
        for name, model in names(Config).items()
    },
)


@pytest.fixture(scope="module")
def anywhere(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("config") / "replicator.yaml"


@given(text=st.text() | SECTIONS.map(lambda data: yaml.safe_dump(data, allow_unicode=True)))
@example(text='source: {dsn_file: "\\0"}')
@example(text="sync: {audience: " + "[" * 5000)
@example(text="rules: *a")
def test_any_text_is_a_configuration_or_a_config_error(anywhere: Path, text: str) -> None:
    anywhere.write_bytes(text.encode(errors="surrogatepass"))
    try:
        config = load(anywhere, SOURCE | {"A": "a"})
    except ConfigError as error:
        assert error.what
    else:
        json.dumps(effective(config))


@pytest.mark.parametrize("loader", ["CSafeLoader", "SafeLoader"])
@pytest.mark.parametrize("place", ["ehr: {auth: {%s: x}}", "%s: x", "rules: %s", "sync: {keys: [{kty: %s}]}"])
def test_an_escape_that_is_no_character_is_a_config_error(
    written: Load, monkeypatch: pytest.MonkeyPatch, loader: str, place: str
) -> None:
    monkeypatch.setattr(yaml_nodes, "LOADER", getattr(yaml, loader))
    with pytest.raises(Problems) as raised:
        written(place % '"\\ud800"')
    assert raised.value.what.encode()


@given(value=st.text(st.characters(codec=None)))
def test_any_variable_is_a_configuration_or_a_config_error(anywhere: Path, value: str) -> None:
    anywhere.write_text(
        "source: {dsn: ${A}, slot: ${A}}\nsync: {audience: ${A}, listen: ${A}}\nehr: {url: ${A}}"
    )
    try:
        load(anywhere, {"A": value})
    except ConfigError as error:
        assert error.what.encode()
