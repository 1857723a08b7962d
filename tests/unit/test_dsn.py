"""A connection string → words for it; never its password."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import SecretStr

from replicator.dsn import check_dsn, describe_dsn, is_dsn

DESCRIBED = {
    "postgresql://u:pw@db.internal:5433/clinic": "clinic at db.internal:5433",
    "postgres://u:pw@db.internal/clinic?sslmode=require": "clinic at db.internal:5432",
    "host=db.internal user=u password=pw dbname=clinic": "clinic at db.internal:5432",
    "host=db.internal user=u password='p w'": "the database at db.internal:5432",
    "dbname=clinic": "clinic on the local socket",
    "host=/run/postgresql dbname=clinic": "clinic on the local socket",
    "postgresql:///clinic?host=/run/pg": "clinic on the local socket",
    "hostaddr=10.0.0.1 dbname=clinic": "clinic at 10.0.0.1:5432",
    "postgresql://u@[::1]:5433/clinic": "clinic at [::1]:5433",
    "host=a,b port=1,2 dbname=clinic": "clinic at a:1,b:2",
    "host=a,b port=1 dbname=clinic": "clinic at a:1,b:1",
    "host=a,b dbname=clinic": "clinic at a:5432,b:5432",
}


@pytest.mark.parametrize("dsn", DESCRIBED)
def test_described_by_database_and_host(dsn: str) -> None:
    assert check_dsn(dsn) == dsn
    assert describe_dsn(dsn) == describe_dsn(SecretStr(dsn)) == DESCRIBED[dsn]


@pytest.mark.parametrize(
    "dsn",
    [
        "postgres://u:s3cret",
        "postgres://u:a@s3cret@h/d",
        "postgres://u:s3cret/x@h/d",
        "postgres://u:s3cret%zz@h/d",
        "postgres://u:12/s3cret@h/d",
        "host=h dbname=postgres://u:s3cret@h/d",
        "host=h password=s3cret x",
        "s3cret",
        "host=h port=s3cret",
    ],
)
def test_described_without_the_secret_however_it_is_misspelt(dsn: str) -> None:
    assert "s3cret" not in describe_dsn(dsn)
    try:
        check_dsn(dsn)
    except ValueError as error:
        assert "s3cret" not in str(error)


@pytest.mark.parametrize("dsn", ["", " ", "clinic", "host", "nothing=1", "host='a", "host=a\0b", "\udcff"])
def test_not_a_connection_string(dsn: str) -> None:
    with pytest.raises(ValueError, match="not a connection string"):
        check_dsn(dsn)
    assert not is_dsn(dsn)


@given(st.text())
def test_any_text_is_described(dsn: str) -> None:
    assert describe_dsn(dsn)
    try:
        assert check_dsn(dsn) == dsn
    except ValueError as error:
        assert "cannot be meant" in str(error) or "not a connection string" in str(error)


def test_a_path_is_not_taken_for_a_connection_string() -> None:
    assert [is_dsn(path) for path in ("secret", "/run/secrets/dsn", "../a=b", "credential:x")] == [False] * 4
    assert [is_dsn(dsn) for dsn in ("postgres://a@b/c", "host=a", "https://x")] == [True] * 3
