"""Connection strings: whatever form a password has, it is masked, and nothing else is."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from claimhouse.dsn import Dsn, is_dsn, mask, without_password

FORMS = [
    "postgresql://app:{}@db.example:5432/claims",
    "postgres://app:{}@db/claims?sslmode=require",
    "postgresql://db/claims?user=app&password={}",
    "postgresql://db/claims?password={}&user=app",
    "host=db user=app password={} dbname=claims",
    "host=db password='{}' dbname=claims",
    "host=db password = {}",
    "connection failed: host=db password={} is wrong",
]


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("secret", ["s3cret", "p%40ss", "tr:icky", "x" * 40])
def test_a_password_is_masked_and_left_out_in_every_form(form: str, secret: str) -> None:
    dsn = form.format(secret)
    assert secret not in mask(dsn)
    assert "***" in mask(dsn)
    assert secret not in without_password(dsn)
    assert secret not in repr(Dsn(dsn)) + str(Dsn(dsn)) + f"{Dsn(dsn)}"
    assert Dsn(dsn).has_password
    assert Dsn(dsn).reveal() == dsn


def test_a_password_with_spaces_and_quotes_is_masked_whole() -> None:
    dsn = r"host=db password='a b\'c d' dbname=claims"
    assert mask(dsn) == "host=db password=*** dbname=claims"
    assert without_password(dsn) == "host=db  dbname=claims"


@pytest.mark.parametrize(
    "dsn", ["postgresql://app@db/claims", "host=db user=app", "service=claims", "", "host=db passfile=/etc/pgpass"]
)
def test_a_string_without_a_password_stays_as_it_is(dsn: str) -> None:
    assert mask(dsn) == dsn
    assert not Dsn(dsn).has_password


@pytest.mark.parametrize(
    ("given", "left"),
    [
        ("postgresql://app:x@db/claims?sslmode=require", "postgresql://app@db/claims?sslmode=require"),
        ("postgresql://db/claims?password=x&user=app", "postgresql://db/claims?user=app"),
        ("postgresql://db/claims?user=app&password=x", "postgresql://db/claims?user=app"),
        ("postgresql://db/claims?password=x", "postgresql://db/claims"),
    ],
)
def test_what_is_left_without_the_password_still_connects(given: str, left: str) -> None:
    assert without_password(given) == left


@given(st.text(st.characters(codec="ascii", categories=["L", "N"]), min_size=8, max_size=30))
def test_no_piece_of_a_url_password_survives(secret: str) -> None:
    assert f":{secret}@" not in mask(f"postgresql://app:{secret}@db/claims")


@pytest.mark.parametrize(("text", "yes"), [("host=x", True), ("postgresql://x", True), ("", True), ("claims", False)])
def test_a_name_is_told_from_a_connection_string(text: str, yes: bool) -> None:
    assert is_dsn(text) is yes
