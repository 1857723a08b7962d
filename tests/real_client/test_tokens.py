"""A phone's token ends, is refused or is renewed, and the phone goes on as its SDK means to."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import pytest

from tests.fixtures.tokens import token as token_of
from tests.real_client.clinic import ServedClinic
from tests.real_client.phones import Phone

pytestmark = [pytest.mark.real_client, pytest.mark.migrated]


def _in_turn(clinic: ServedClinic, phone: Phone, *first: str | None) -> None:
    """Give a phone these tokens, then good ones; None: the app cannot have one just then."""
    (user,) = clinic.people()
    tokens: Iterator[str | None] = iter(first)

    def credentials() -> Mapping[str, str]:
        token = next(tokens, token_of(user))
        if token is None:
            raise RuntimeError("the login does not answer")
        return {"endpoint": clinic.endpoint, "token": token}

    phone.credentials = credentials


async def test_a_token_about_to_end_is_renewed_while_connected(clinic: ServedClinic, transport: str) -> None:
    await clinic.build(patients=1)
    (ann,) = clinic.people()
    clinic.start()
    phone = clinic.phone(ann)
    # The last call comes 20 s before its end.
    _in_turn(clinic, phone, token_of(ann, lasts_s=22))
    phone.connect(transport)
    phone.until_synced()
    phone.until_asked_for_tokens(2)
    clinic.measure("after the renewal")
    phone.until("SELECT notes FROM vital_signs", [["after the renewal"]])
    assert phone.status()["connected"]


async def test_a_token_that_ends_unrenewed_ends_the_stream_and_the_next_goes_on(
    clinic: ServedClinic, transport: str
) -> None:
    await clinic.build(patients=1)
    (ann,) = clinic.people()
    clinic.start()
    phone = clinic.phone(ann)
    _in_turn(clinic, phone, token_of(ann, lasts_s=3), None)
    phone.connect(transport)
    phone.until_synced()
    phone.until_asked_for_tokens(3)
    clinic.measure("after the end")
    phone.until("SELECT notes FROM vital_signs", [["after the end"]])


async def test_refused_tokens_bring_nothing_and_a_good_one_everything(
    clinic: ServedClinic, transport: str
) -> None:
    await clinic.build(patients=1)
    (ann,) = clinic.people()
    clinic.measure("hers")
    clinic.start()
    phone = clinic.phone(ann)
    forged = token_of(ann)[:-6] + "AAAAAA"
    _in_turn(clinic, phone, token_of(ann, lasts_s=-600), token_of(ann, aud="elsewhere"), forged)
    phone.connect(transport)
    phone.until_synced()
    clinic.assert_holds_record(phone, ann)
    assert phone.tokens_asked == 4
    if transport != "websocket":
        statuses = [said["status"] for said in phone.answers if said["path"] == "/sync/stream"]
        assert statuses == [401, 401, 401, 200]
