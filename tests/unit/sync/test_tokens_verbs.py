"""replicator token keygen|issue, and what of the configuration becomes keys."""

from __future__ import annotations

import base64
import json
import stat
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import orjson
import pytest
from click.testing import CliRunner

from replicator.cli import main
from replicator.config import Config, load
from replicator.errors import ConfigError
from replicator.sync.auth import AuthError
from replicator.sync.auth_keyring import Keyring
from replicator.sync.keys_configured import client_keyring, login_keyring, supabase_url
from replicator.sync.tokens import jwks
from replicator.sync.upstream import issue_for, issuing
from tests.unit.sync.signers import NOW, SECRET, encoded, jwk_of, sign

SOURCE = {"SOURCE_DSN": "host=a"}
SUPABASE = "postgresql://postgres:x@db.abcdefgh.supabase.co:5432/postgres"
JWKS = "/auth/v1/.well-known/jwks.json"

Written = Callable[..., Config]


@pytest.fixture
def written(tmp_path: Path) -> Written:
    def load_text(text: str, environ: Mapping[str, str] = SOURCE) -> Config:
        (tmp_path / "replicator.yaml").write_text(text)
        return load(tmp_path / "replicator.yaml", environ)

    return load_text


@pytest.fixture
def replicator(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., tuple[int, str, str]]:
    monkeypatch.chdir(tmp_path)

    def run(*argv: str, config: str | None = None) -> tuple[int, str, str]:
        if config is not None:
            Path("replicator.yaml").write_text(config)
            argv = (*argv, "--config", "replicator.yaml")
        result = CliRunner(env=SOURCE).invoke(main, ["token", *argv])
        return result.exit_code, result.stdout, result.stderr

    return run


def urls(ring: Keyring) -> list[str]:
    return [one.url for one in ring._published]


async def accepts(ring: Keyring, token: str, now: float = NOW) -> bool:
    try:
        return bool(await ring.user(f"Token {token}", now))
    except AuthError:
        return False


# The verbs.

Run = Callable[..., tuple[int, str, str]]


@pytest.mark.parametrize("alg", ["RS256", "ES256", "EdDSA"])
async def test_a_new_key_signs_what_its_server_and_others_accept(
    replicator: Run, written: Written, alg: str
) -> None:
    code, out, _ = replicator("keygen", "--alg", alg, "--out", "key.pem", "--json")
    made = json.loads(out)
    assert (code, made["file"], made["alg"], made["jwk"]["kid"]) == (0, "key.pem", alg, made["kid"])
    assert stat.S_IMODE(Path("key.pem").stat().st_mode) == 0o600
    ours = "sync: {audience: app, token: {key_file: key.pem, url: https://s}}"
    argv = ("issue", "--user", "ann", "--claim", "role=nurse", "--claim", 'wards=["w1"]', "--json")
    code, out, _ = replicator(*argv, config=ours)
    issued = json.loads(out)
    assert (code, issued["powersync_url"], issued["user_id"]) == (0, "https://s", "ann")
    for text in (ours, f"sync: {{audience: app, keys: [{json.dumps(made['jwk'])}]}}"):
        config = written(text)
        user = await client_keyring(config, {}).user(f"Token {issued['token']}", time.time())
        assert (user.sub, user.claims["role"], user.claims["wards"]) == ("ann", "nurse", ["w1"])
    key = issuing(written(ours).sync, {}).key
    assert key is not None and not isinstance(key, ConfigError)
    assert jwks([key]) == {"keys": [made["jwk"]]}


async def test_a_refused_audience_names_each_that_is_accepted_once(replicator: Run, written: Written) -> None:
    replicator("keygen", "--out", "key.pem")
    theirs, ours = (
        f"sync: {{audience: {audience}, token: {{key_file: key.pem}}}}" for audience in ("theirs", "[a, b]")
    )
    _, token, _ = replicator("issue", "--user", "ann", config=theirs)
    with pytest.raises(AuthError) as refused:
        await client_keyring(written(ours), {}).user(f"Token {token.strip()}", time.time())
    assert refused.value.what == 'The token has the aud "theirs"; expected is a or b'


def test_what_is_printed_can_be_pasted(replicator: Run, written: Written) -> None:
    code, out, _ = replicator("keygen")
    assert code == 0
    signs, accepts_only = (line.strip() for line in out.splitlines() if line.startswith("  "))
    assert written(signs).sync.token.key_file is not None
    assert len(client_keyring(written(accepts_only), {})._keys) == 1
    assert "PRIVATE" not in out


def test_a_key_is_never_written_over(replicator: Run) -> None:
    assert replicator("keygen", "--out", "key.pem")[0] == 0
    before = Path("key.pem").read_bytes()
    code, out, err = replicator("keygen", "--out", "key.pem")
    assert (code, out) == (2, "")
    assert err == "error: key.pem: exists already\n  Choose another name with --out.\n"
    assert Path("key.pem").read_bytes() == before
    assert replicator("keygen", "--out", "no/such/folder")[0] == 2


def test_only_the_token_is_on_stdout(replicator: Run) -> None:
    replicator("keygen", "--out", "key.pem")
    code, out, err = replicator(
        "issue", "--user", "ann", "--expires", "1h", config="sync: {token: {key_file: key.pem}}"
    )
    assert (code, out.count("."), out.count("\n")) == (0, 2, 1)
    assert err.startswith("for ann at http://127.0.0.1:8080, until 20")
    claims = orjson.loads(base64.urlsafe_b64decode(out.split(".")[1] + "=="))
    assert claims["exp"] - claims["iat"] == 3600


KEY = f"{{kty: oct, k: {encoded(SECRET)}}}"
REFUSED = [
    ([], "sync: {}", "no key to sign with is configured: see sync.token.key_file"),
    ([], f"sync: {{keys: [{json.dumps(jwk_of('RS256'))}]}}", "no key to sign with is configured"),
    (
        [],
        f"sync: {{keys: [{KEY}]}}",
        'the server would refuse this token: The token has the aud "replicator"',
    ),
    (
        [],
        "sync: {keys: [{kty: oct, k: AAAA}]}",
        "sync.keys[0]: the key cannot be used: the secret has 24 bits",
    ),
    ([], "sync: {token: {key_file: absent.pem}}", "absent.pem: cannot be read: No such file"),
    ([], "sync: {token: {key: x, key_file: y}}", "sync.token: key and key_file are both given"),
    (["--expires", "2d"], f"sync: {{audience: a, keys: [{KEY}]}}", "--expires: must be from 1s to 1d"),
    (["--expires", "8"], f"sync: {{audience: a, keys: [{KEY}]}}", "--expires: must be a number and a unit"),
    (["--claim", "x"], f"sync: {{audience: a, keys: [{KEY}]}}", "--claim: must be NAME=VALUE"),
    (["--claim", "sub=x"], f"sync: {{audience: a, keys: [{KEY}]}}", "--claim sub: this claim is made here"),
    (["--claim", "parameters=x"], f"sync: {{audience: a, keys: [{KEY}]}}", "the server would refuse this"),
    (["--user", ""], f"sync: {{audience: a, keys: [{KEY}]}}", "--user: this cannot be a subject"),
]


@pytest.mark.parametrize(("argv", "config", "what"), REFUSED, ids=[what for *_, what in REFUSED])
def test_a_token_that_cannot_be_issued(replicator: Run, argv: list[str], config: str, what: str) -> None:
    code, out, err = replicator("issue", "--user", "ann", *argv, config=config)
    assert (code, out) == (2, "")
    assert what in err
    assert "Traceback" not in err


def test_a_configured_secret_signs_too(replicator: Run) -> None:
    assert replicator("issue", "--user", "ann", config=f"sync: {{audience: a, keys: [{KEY}]}}")[0] == 0


# The configuration.


async def test_the_terms_are_those_of_the_configuration(written: Written) -> None:
    ring = client_keyring(
        written(f"sync: {{audience: [a, b], max_age: 1h, clock_tolerance: 5s, keys: [{KEY}]}}"), {}
    )
    assert await accepts(ring, sign("HS256", {"aud": "b"}))
    assert not await accepts(ring, sign("HS256", {"aud": "app"}))
    assert not await accepts(ring, sign("HS256", {"aud": "b", "exp": NOW + 3601}))
    assert await accepts(ring, sign("HS256", {"aud": "b", "exp": NOW - 4}))
    assert not await accepts(ring, sign("HS256", {"aud": "b", "exp": NOW - 5}))


def test_a_key_that_cannot_be_used_is_told_by_its_place(written: Written) -> None:
    with pytest.raises(ConfigError, match=r"^sync\.keys\[1\]: the key cannot be used: its kty is none of"):
        client_keyring(written(f"sync: {{keys: [{KEY}, {{kty: nonsense}}]}}"), {})


def test_an_address_without_tls_needs_leave(written: Written) -> None:
    text = "sync: {jwks_uri: http://keys:8080/realm/certs, jwks_plain_http: %s}"
    with pytest.raises(ConfigError, match=r"^sync\.jwks_uri: the address is not https; .*jwks_plain_http"):
        client_keyring(written(text % "false"), {})
    assert urls(client_keyring(written(text % "true"), {})) == ["http://keys:8080/realm/certs"]


def test_private_addresses_can_be_refused_at_once(written: Written) -> None:
    with pytest.raises(ConfigError, match="is a private address"):
        client_keyring(written("sync: {jwks_uri: 'https://10.0.0.1/', jwks_private: false}"), {})


async def test_supabase_by_its_secret(written: Written, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("super-secret-of-at-least-32-characters\n")
    secret = b"super-secret-of-at-least-32-characters"
    for text in ("{secret: ${S}}", "{secret_file: secret}", "{secret_file: credential:secret}"):
        environ = SOURCE | {"S": secret.decode(), "CREDENTIALS_DIRECTORY": str(tmp_path)}
        config = written(f"sync: {{audience: app, supabase: {text}}}", environ)
        ring = client_keyring(config, environ)
        assert urls(ring) == []
        assert await accepts(ring, hs256(secret, {"aud": "authenticated", "exp": NOW + 7 * 86_400}))
        assert not await accepts(ring, hs256(secret, {"aud": "app"}))
        assert not await accepts(ring, hs256(secret, {"aud": "authenticated", "exp": NOW + 8 * 86_400}))
        # The project's public key has no subject, and neither has the one that may do everything.
        assert not await accepts(ring, hs256(secret, {"aud": None, "sub": None, "role": "service_role"}))


def hs256(secret: bytes, claims: dict[str, object]) -> str:
    from jwt.algorithms import get_default_algorithms

    message = sign("HS256", claims).rpartition(".")[0]
    return f"{message}.{encoded(get_default_algorithms()['HS256'].sign(message.encode(), secret))}"


@pytest.mark.parametrize(
    ("dsn", "url"),
    [
        (SUPABASE, "https://abcdefgh.supabase.co"),
        ("host=aws-0-eu.pooler.supabase.com user=postgres.abcdefgh", "https://abcdefgh.supabase.co"),
        ("host=aws-0-eu.pooler.supabase.com user=postgres", None),
        ("host=db.clinic.internal", None),
        ("host=db.a.evil/x.supabase.co", None),
        ("host=db..supabase.co", None),
        ("", None),
    ],
)
def test_supabase_by_the_source(dsn: str, url: str | None) -> None:
    assert supabase_url(dsn) == url


def test_supabase_by_its_address_or_the_sources(written: Written) -> None:
    here = {"SOURCE_DSN": SUPABASE}
    assert urls(client_keyring(written("sync: {supabase: true}", here), {})) == [
        f"https://abcdefgh.supabase.co{JWKS}"
    ]
    other = "sync: {supabase: {project_url: 'https://other.supabase.co/'}}"
    assert urls(client_keyring(written(other, here), {})) == [f"https://other.supabase.co{JWKS}"]
    assert urls(client_keyring(written("sync: {supabase: false}", here), {})) == []
    with pytest.raises(ConfigError, match=r"^sync\.supabase: the source's DSN does not say") as raised:
        client_keyring(written("sync: {supabase: true}"), {})
    assert "project_url" in raised.value.hint
    with pytest.raises(ConfigError, match=r"^sync\.supabase: the secret has 24 bits"):
        client_keyring(written("sync: {supabase: {secret: abc}}"), {})


async def test_a_login_has_keys_of_its_own(written: Written) -> None:
    upstream = f"{{keys: [{KEY}], audience: clinic, issuer: 'https://login'}}"
    config = written(f"sync: {{audience: app, token: {{upstream: {upstream}}}}}")
    login = login_keyring(config, {})
    assert login is not None
    theirs = sign("HS256", {"aud": "clinic", "iss": "https://login"})
    assert await accepts(login, theirs)
    assert not await accepts(login, sign("HS256", {"aud": "clinic"}))
    assert not await accepts(client_keyring(config, {}), theirs), "a login opens nothing by itself"
    assert login_keyring(written("sync: {}"), {}) is None
    with pytest.raises(ConfigError, match=r"^sync\.token\.upstream\.audience: is empty"):
        login_keyring(written(f"sync: {{token: {{upstream: {{keys: [{KEY}]}}}}}}"), {})


async def test_a_short_life_of_clients_tokens_is_none_of_our_own_nor_of_logins(
    written: Written, replicator: Run
) -> None:
    replicator("keygen", "--out", "key.pem")
    config = written(
        "sync: {max_age: 1h, token: {key_file: key.pem, lifetime: 8h,"
        f" upstream: {{keys: [{KEY}], audience: clinic}}}}}}"
    )
    ours = issuing(config.sync, {})
    assert ours.key is not None and not isinstance(ours.key, ConfigError)
    token, _ = issue_for("ann", {}, ours, ours.key, NOW)
    assert await accepts(client_keyring(config, {}), token)
    login = login_keyring(config, {})
    assert login is not None
    assert await accepts(login, sign("HS256", {"aud": "clinic", "exp": NOW + 86_400}))
    assert not await accepts(login, sign("HS256", {"aud": "clinic", "exp": NOW + 86_401}))


def test_firebase_is_the_projects_alone(written: Written) -> None:
    login = login_keyring(written("sync: {token: {upstream: {firebase: clinic-1}}}"), {})
    assert login is not None
    (google,) = login._published
    assert google.url.startswith("https://www.googleapis.com/service_accounts/v1/jwk/securetoken@")
    assert google._terms.audience == ("clinic-1",)
    assert google._terms.issuer == "https://securetoken.google.com/clinic-1"


def test_supabase_can_be_the_login(written: Written) -> None:
    login = login_keyring(written("sync: {token: {upstream: {supabase: {project_url: 'https://p'}}}}"), {})
    assert login is not None
    assert urls(login) == [f"https://p{JWKS}"]
    assert login._published[0]._terms.audience == ("authenticated",)


async def test_a_key_of_ours_that_cannot_be_used_stops_nobody_else(written: Written, tmp_path: Path) -> None:
    (tmp_path / "broken.pem").write_text("s3cret")
    config = written(f"sync: {{audience: app, keys: [{KEY}], token: {{key_file: broken.pem}}}}")
    assert await accepts(client_keyring(config, {}), sign("HS256"))
    key = issuing(config.sync, {}).key
    assert isinstance(key, ConfigError)
    assert "broken.pem" in key.what and "s3cret" not in key.what + key.hint
