"""Connections that speak RSocket, held with a real server by a client that says exact frames."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable
from typing import Any

import bson
import pytest

from replicator.buckets.model import Op, OpId
from replicator.errors import ReplicatorError, Unavailable
from replicator.sync import rsocket
from replicator.sync.auth import User
from replicator.sync.lines import DataLine, TokenLine
from replicator.sync.request import Request
from replicator.sync.rsocket_frames import (
    Cancel,
    Error,
    ErrorCode,
    Frame,
    Keepalive,
    Kind,
    Lease,
    Other,
    Payload,
    RequestN,
    RequestStream,
    encode,
)
from replicator.sync.rsocket_requests import REQUEST_MOST
from replicator.sync.rsocket_stream import Stream
from tests.fixtures.signals import Signals
from tests.unit.sync.rsocket_peer import PATH, ask, number, serving, setup, token

ASKING = Keepalive(True, b"still there?")
ANSWER = Keepalive(False, b"still there?")


def complete(at: int) -> dict[str, Any]:
    return {"checkpoint_complete": {"last_op_id": str(at)}}


# -- streams -------------------------------------------------------------------------------------------


async def test_a_request_reaches_the_conversation_with_its_user() -> None:
    async with serving() as place:
        body = b'{"buckets":[{"name":"a[]","after":"7"}],"client_id":"phone","raw_data":true}'
        await place.connect(setup(token(sub="bob")), ask(body=body))
        conversation = await place.told.next()
        assert conversation.user.sub == "bob"
        assert (conversation.request.client_id, conversation.request.furthest) == ("phone", 7)


async def test_each_line_is_one_document_in_one_frame() -> None:
    async with serving() as place:
        peer = await place.connect(setup(), ask())
        (await place.told.next()).say(number(1), number(2))
        assert [await peer.document(), await peer.document()] == [complete(1), complete(2)]


async def test_no_more_lines_are_sent_than_there_is_credit_for() -> None:
    async with serving() as place:
        peer = await place.connect(setup(), ask(n=2))
        conversation = await place.told.next()
        conversation.say(*map(number, range(7)))
        assert [await peer.document(), await peer.document()] == [complete(0), complete(1)]
        await peer.say(ASKING)
        assert await peer.hear() == ANSWER
        await peer.say(RequestN(1, 1), RequestN(1, 2))
        assert [await peer.document() for _ in range(3)] == [complete(2), complete(3), complete(4)]
        await peer.say(ASKING)
        assert await peer.hear() == ANSWER
        assert conversation.sent == 0


async def test_credit_that_is_not_used_is_kept() -> None:
    async with serving() as place:
        peer = await place.connect(setup(), ask(n=2), RequestN(1, 2), ASKING)
        assert await peer.hear() == ANSWER
        (await place.told.next()).say(*map(number, range(4)))
        assert [await peer.document() for _ in range(4)] == list(map(complete, range(4)))


async def test_streams_of_one_connection_have_their_own_credit() -> None:
    async with serving() as place:
        peer = await place.connect(setup(), ask(1, n=1), ask(3, n=3))
        first, second = await place.told.next(), await place.told.next()
        first.say(number(1), number(2))
        heard = await peer.hear()
        assert isinstance(heard, Payload) and heard.stream == 1
        second.say(number(3), number(4), number(5))
        assert [(await peer.hear()).stream for _ in range(3)] == [3, 3, 3]  # type: ignore[union-attr]
        await peer.say(RequestN(1, 1))
        heard = await peer.hear()
        assert isinstance(heard, Payload) and (heard.stream, bson.decode(heard.data)) == (1, complete(2))


async def test_a_line_too_large_for_a_frame_goes_in_several_for_one_credit() -> None:
    text = "x" * 17_000_000
    op = Op(OpId(1), "a[]", "PUT", "t", "1", "k", 5, text)
    async with serving() as place:
        peer = await place.connect(setup(), ask(n=2))
        (await place.told.next()).say(DataLine("a[]", OpId(0), OpId(1), False, [op]), number(1))
        first, second = await peer.hear(), await peer.hear()
        assert isinstance(first, Payload) and isinstance(second, Payload)
        assert (first.follows, second.follows, first.next, second.next) == (True, False, True, True)
        document = bson.decode(first.data + second.data)
        assert document["data"]["data"][0]["data"] == text
        assert await peer.document() == complete(1)


async def test_a_request_in_pieces_is_put_together() -> None:
    body = b'{"client_id":"' + b"p" * 500 + b'"}'
    async with serving() as place:
        await place.connect(
            setup(),
            RequestStream(1, 5, PATH[:9], b"", follows=True),
            ask(3),
            Payload(1, PATH[9:], body[:100], follows=True, next=False),
            Payload(1, None, body[100:], next=True),
        )
        assert (await place.told.next()).request.client_id is None
        assert (await place.told.next()).request.client_id == "p" * 500


async def test_a_request_in_pieces_that_grows_too_long_is_refused_and_forgotten() -> None:
    async with serving() as place:
        peer = await place.connect(setup(), RequestStream(1, 5, PATH, b"", follows=True))
        piece = bytes(REQUEST_MOST // 4)
        for _ in range(4):
            await peer.say(Payload(1, None, piece, follows=True))
        heard = await peer.hear()
        assert isinstance(heard, Error) and heard.stream == 1 and "[PSYNC_S2001]" in heard.text
        await peer.say(Payload(1, None, piece), ask(3))
        assert (await place.told.next()).out.stream == 3


async def test_of_the_token_only_its_end_is_told() -> None:
    async with serving() as place:
        peer = await place.connect(setup(), ask())
        (await place.told.next()).say(TokenLine(3_000), TokenLine(21), TokenLine(20), TokenLine(0))
        assert await peer.document() == {"token_expires_in": 20}
        assert await peer.document() == {"token_expires_in": 0}


async def test_a_conversation_that_ends_completes_its_stream() -> None:
    async with serving() as place:
        peer = await place.connect(setup(), ask())
        (await place.told.next()).end()
        assert await peer.hear() == Payload(1, complete=True, next=False)
        await peer.say(ask(3))
        assert (await place.told.next()).out.stream == 3


async def test_a_cancelled_stream_ends_and_the_others_go_on() -> None:
    async with serving() as place:
        peer = await place.connect(setup(), ask(1, n=1), ask(3))
        first, second = await place.told.next(), await place.told.next()
        first.say(number(1), number(2))
        assert await peer.document() == complete(1)
        await peer.say(Cancel(1))
        await first.over.wait()
        second.say(number(3))
        assert await peer.document() == complete(3)


@pytest.mark.parametrize("how", ["close", "drop"])
async def test_every_stream_ends_with_the_connection(how: str) -> None:
    async with serving() as place:
        peer = await place.connect(setup(), ask(1, n=1), ask(3))
        first, second = await place.told.next(), await place.told.next()
        first.say(number(1), number(2))
        assert await peer.document() == complete(1)
        if how == "close":
            await peer.socket.close()
        else:
            transport: Any = peer.socket._writer.transport
            transport.abort()
        await first.over.wait()
        await second.over.wait()


async def test_a_conversation_that_does_not_end_is_made_to(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rsocket, "_END_S", 0.05)
    begun, ended = asyncio.Event(), asyncio.Event()

    async def deaf(user: User, request: Request, out: Stream) -> None:
        begun.set()
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()

    async with serving(deaf) as place:
        peer = await place.connect(setup(), ask())
        await begun.wait()
        await peer.socket.close()
        await ended.wait()


# -- what goes wrong in a stream -----------------------------------------------------------------------


class Coded(ReplicatorError):
    code = "PSYNC_S2302"


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (Coded("No rules yet", "Wait."), "[PSYNC_S2302] No rules yet. Wait."),
        (
            Unavailable("storage at 10.0.0.1 is gone"),
            "[PSYNC_S2003] The server cannot answer now. Try again.",
        ),
        (RuntimeError("a row's value"), "[PSYNC_S2003] The server failed"),
    ],
)
async def test_a_conversation_that_fails_ends_its_stream_alone(
    error: Exception, text: str, signals: Signals
) -> None:
    async with serving() as place:
        peer = await place.connect(setup(), ask())
        (await place.told.next()).end(error)
        assert await peer.hear() == Error(1, ErrorCode.APPLICATION_ERROR, text)
        await peer.say(ask(3))
        assert (await place.told.next()).out.stream == 3
    assert "a row's value" not in repr([seen.fields for seen in signals.seen])


@pytest.mark.parametrize(
    ("request_", "text"),
    [
        (ask(metadata=b'{"path":"/other"}'), "[PSYNC_S2002]"),
        (ask(metadata=None), "[PSYNC_S2001]"),
        (ask(metadata=b"["), "[PSYNC_S2001]"),
        (ask(metadata=b"[" * 200_000), "[PSYNC_S2001]"),
        (ask(body=b""), "[PSYNC_S2001] Validation failed"),
        (ask(body=b'{"buckets":5}'), "[PSYNC_S2001] Validation failed. buckets: must be an array"),
        (Other(Kind.REQUEST_RESPONSE, 1, False), "[PSYNC_S2002]"),
        (Other(Kind.REQUEST_CHANNEL, 1, False), "[PSYNC_S2002]"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
async def test_a_request_that_cannot_be_served_is_refused_alone(request_: Frame, text: str) -> None:
    async with serving() as place:
        peer = await place.connect(setup(), request_)
        heard = await peer.hear()
        assert isinstance(heard, Error) and heard.stream == 1 and text in heard.text
        await peer.say(ask(3))
        assert (await place.told.next()).out.stream == 3


async def test_streams_beyond_the_limit_are_refused_until_one_ends() -> None:
    async with serving(streams_most=2) as place:
        peer = await place.connect(setup(), ask(1), RequestStream(3, 1, PATH, b"", follows=True), ask(5))
        heard = await peer.hear()
        assert isinstance(heard, Error) and heard.stream == 5 and "[PSYNC_S2304]" in heard.text
        (await place.told.next()).end()
        assert await peer.hear() == Payload(1, complete=True, next=False)
        await peer.say(ask(7))
        assert (await place.told.next()).out.stream == 7


async def test_a_client_without_credit_is_told_when_its_token_has_expired() -> None:
    now = [time.time()]
    async with serving(clock=lambda: now[0]) as place:
        peer = await place.connect(setup(), ask(n=1))
        conversation = await place.told.next()
        conversation.say(number(1))
        assert await peer.document() == complete(1)
        now[0] += 7_200
        conversation.say(number(2))
        heard = await peer.hear()
        assert isinstance(heard, Error) and heard.stream == 1 and "[PSYNC_S2103]" in heard.text


async def test_a_token_that_has_expired_begins_no_stream() -> None:
    now = [time.time()]
    async with serving(clock=lambda: now[0]) as place:
        peer = await place.connect(setup(), ASKING)
        assert await peer.hear() == ANSWER
        now[0] += 7_200
        await peer.say(ask())
        heard = await peer.hear()
        assert isinstance(heard, Error) and heard.stream == 1 and "[PSYNC_S2103]" in heard.text


async def test_a_connection_without_streams_ends_with_its_token() -> None:
    now = [time.time()]
    async with serving(clock=lambda: now[0]) as place:
        peer = await place.connect(setup(), ASKING)
        assert await peer.hear() == ANSWER
        now[0] += 7_200
        await peer.say(ASKING)
        assert await peer.hear() == ANSWER
        assert "[PSYNC_S2103]" in await peer.fault()


# -- connections ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["/", "/sync/stream", "/any/thing?x=1"])
async def test_any_path_will_do(path: str) -> None:
    async with serving() as place:
        peer = await place.connect(setup(), ASKING, path=path)
        assert await peer.hear() == ANSWER


async def test_a_keepalive_that_does_not_ask_is_not_answered() -> None:
    async with serving() as place:
        peer = await place.connect(setup(), Keepalive(False, b"no"), Keepalive(True, b"yes"))
        assert await peer.hear() == Keepalive(False, b"yes")


async def test_everything_may_be_bson() -> None:
    async with serving() as place:
        metadata = bson.encode({"token": token(), "user_agent": "test"})
        kinds = {"metadata_type": "application/bson", "data_type": "application/bson"}
        body = bson.encode({"client_id": "b"})
        request = ask(metadata=bson.encode({"path": "/sync/stream"}), body=body)
        await place.connect(setup(metadata=metadata, **kinds), request)
        assert (await place.told.next()).request.client_id == "b"


@pytest.mark.parametrize(
    ("first", "fault"),
    [
        (setup(token(exp=1_000, iat=900)), "0x3 [PSYNC_S2103]"),
        (setup(token(aud="another")), "0x3 [PSYNC_S2105]"),
        (setup("Token x"), "0x3 [PSYNC_S2101]"),
        (setup("x"), "0x3 [PSYNC_S2106]"),
        (setup(metadata=b"{}"), "0x3 [PSYNC_S2106]"),
        (setup(metadata=b'{"token":5}'), "0x3 [PSYNC_S2106]"),
        (setup(metadata=None), "0x1 [PSYNC_S2001]"),
        (setup(metadata=b"token"), "0x1 [PSYNC_S2001]"),
        (setup(metadata_type="text/plain"), "0x2 [PSYNC_S2004]"),
        (setup(data_type="application/cbor"), "0x2 [PSYNC_S2004]"),
        (setup(version=(2, 0)), "0x2 [PSYNC_S2001]"),
        (setup(resume_token=b"r"), "0x2 [PSYNC_S2001]"),
        (setup(is_leased=True), "0x2 [PSYNC_S2001]"),
        (ask(), "0x1 [PSYNC_S2001]"),
        (Other(Kind.RESUME, 0, False), "0x4 [PSYNC_S2001]"),
        (b"", "0x101 [PSYNC_S2001]"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
async def test_a_connection_that_begins_wrongly_is_rejected(first: Frame | bytes, fault: str) -> None:
    async with serving() as place:
        peer = await place.connect(first)
        assert (await peer.fault()).startswith(fault)
        assert place.told.conversations.empty()


@pytest.mark.parametrize(
    ("wrong", "code"),
    [
        (setup(), 0x1),
        (ask(2), 0x101),
        (ask(1), 0x101),
        (Lease(5, 5), 0x101),
        (Other(0x2A, 0, False), 0x101),
        (Other(Kind.EXT, 1, False), 0x101),
        (b"\0\0\0", 0x101),
    ],
    ids=["two setups", "even stream", "stream again", "lease", "unknown", "extension", "broken"],
)
async def test_what_breaks_the_protocol_ends_the_connection(wrong: Frame | bytes, code: int) -> None:
    async with serving() as place:
        peer = await place.connect(setup(), ask(1))
        conversation = await place.told.next()
        await peer.say(wrong)
        assert (await peer.fault()).startswith(f"{code:#x} [PSYNC_S2001]")
        await conversation.over.wait()


async def test_text_is_no_frame() -> None:
    async with serving() as place:
        peer = await place.connect(setup())
        await peer.socket.send_str("hello")
        assert "Not RSocket" in await peer.fault()


async def test_what_may_be_passed_over_is() -> None:
    frames: list[Frame] = [
        Other(0x2A, 0, True),
        Other(Kind.EXT, 1, True),
        Other(Kind.METADATA_PUSH, 0, False),
        Other(Kind.REQUEST_FNF, 5, False),
        RequestN(9, 5),
        Cancel(9),
        Payload(9, data=b"x"),
    ]
    async with serving() as place:
        peer = await place.connect(setup(), *frames, ASKING)
        assert await peer.hear() == ANSWER


async def test_a_client_that_is_silent_for_its_lifetime_is_gone() -> None:
    async with serving() as place:
        peer = await place.connect(setup(keepalive_ms=100, lifetime_ms=300), ask())
        conversation = await place.told.next()
        assert "Nothing was heard of the client for 1 s" in await peer.fault()
        await conversation.over.wait()


async def test_a_client_that_never_says_who_it_is_is_not_waited_for() -> None:
    async with serving(setup_s=0.05) as place:
        assert (await (await place.connect()).fault()).startswith("0x1 ")


async def test_connections_beyond_the_limit_are_rejected_until_one_ends(signals: Signals) -> None:
    async with serving(most=1) as place:
        first = await place.connect(setup(), ask())
        conversation = await place.told.next()
        second = await place.connect(setup())
        assert (await second.fault()).startswith("0x3 [PSYNC_S2304]")
        await signals.wait("too many connections")
        await first.socket.close()
        await conversation.over.wait()
        while place.endpoint.places.taken:
            await asyncio.sleep(0)
        third = await place.connect(setup(), ASKING)
        assert await third.hear() == ANSWER


async def test_one_user_has_a_share_of_the_connections(signals: Signals) -> None:
    async with serving(each=1) as place:
        await place.connect(setup(), ask())
        await place.told.next()
        second = await place.connect(setup())
        assert (await second.fault()).startswith("0x3 [PSYNC_S2304]")
        await signals.wait("too many connections of one user")
        other = await place.connect(setup(token(sub="somebody else", aud="app")), ASKING)
        assert await other.hear() == ANSWER


async def test_of_strangers_beyond_the_limit_the_newest_are_waited_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(rsocket, "_STRANGERS_MOST", 0)
    async with serving(most=2, setup_s=1e6) as place:
        first, second = await place.connect(), await place.connect()
        third = await place.connect(setup(), ASKING)
        assert await third.hear() == ANSWER, "whoever says who they are is not kept out"
        assert (await first.fault()).startswith("0x1 ")
        await second.say(setup(), ASKING)
        assert await second.hear() == ANSWER


@pytest.mark.parametrize("seed", range(3))
async def test_whatever_a_client_sends_the_next_one_is_served(seed: int) -> None:
    print("seed", seed)
    chance = random.Random(seed)
    makers: list[Callable[[], Frame | bytes]] = [
        lambda: chance.randbytes(chance.randint(0, 60)),
        lambda: damaged(encode(setup()), chance),
        lambda: damaged(encode(ask(chance.randint(1, 9))), chance),
        lambda: ask(chance.randint(1, 9), follows=chance.random() < 0.5),
        lambda: Payload(chance.randint(1, 9), None, b"{}", chance.random() < 0.5),
        lambda: RequestN(chance.randint(1, 9), chance.randint(1, 99)),
        lambda: Cancel(chance.randint(1, 9)),
    ]
    async with serving() as place:
        for _ in range(30):
            peer = await place.connect(setup())
            for _ in range(chance.randint(1, 12)):
                if peer.socket.closed:
                    break
                try:
                    await peer.say(chance.choice(makers)())
                except ConnectionResetError:
                    break
            await peer.socket.close()
        last = await place.connect(setup(), ASKING)
        assert await last.hear() == ANSWER
        while place.endpoint.open > 1:
            await asyncio.sleep(0)
        assert place.endpoint.places.taken == 1


def damaged(message: bytes, chance: random.Random) -> bytes:
    damaged = bytearray(message)
    damaged[chance.randrange(len(damaged))] ^= 1 << chance.randrange(8)
    return bytes(damaged[: chance.randint(1, len(damaged))])
