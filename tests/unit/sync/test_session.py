"""A session says what the transcripts say, line by line, in both encodings; and refuses what cannot be."""

from __future__ import annotations

import json
import pickle
from pathlib import Path
from typing import Any

import pytest

from replicator.buckets.model import Op, OpId, Total
from replicator.sync.lines import Encoding, Line, Reason, Stream, StreamError, encode
from replicator.sync.request import Request, understood
from replicator.sync.session import FETCH_BUCKETS, INTERRUPT_OPS, Session
from replicator.sync.session_offer import Grant, Offer, Page
from tests.unit.sync.client import Client, lines_of

GOLDEN = {
    path.stem: json.loads(path.read_text(encoding="utf-8"))
    for path in sorted((Path(__file__).parent / "golden").glob("*.json"))
}
#: Clients that want rows as objects read JSON only.
CASES = [
    (name, encoding)
    for name, transcript in GOLDEN.items()
    for encoding in Encoding
    if encoding is Encoding.NDJSON or transcript["request"].get("raw_data")
]
#: Clients that have nothing at first, so that they can be followed from there.
FRESH = [
    name for name, said in GOLDEN.items() if not any(int(had["after"]) for had in said["request"]["buckets"])
]


def offer_of(said: dict[str, Any]) -> Offer:
    streams = [
        Stream(
            stream["name"],
            stream["is_default"],
            tuple(
                StreamError(
                    None if error["subscription"] == "default" else error["subscription"], error["message"]
                )
                for error in stream["errors"]
            ),
        )
        for stream in said.get("streams", [])
    ]
    granted = [
        Grant(bucket, priority, tuple(Reason(*reason) for one in reasons for reason in one.items()))
        for bucket, priority, reasons in said["granted"]
    ]
    totals = {bucket: Total(*total) for bucket, total in said["totals"].items()}
    return Offer(OpId(said["checkpoint"]), said.get("write_checkpoint"), granted, streams, totals)


def put(op_id: int) -> list[Any]:
    """The op that a transcript abbreviates as `puts`."""
    return [op_id, "PUT", "todos", str(op_id), "k", 1, '{"n":1}']


def page_of(said: dict[str, Any]) -> Page:
    first, last = said.get("puts", (1, 0))
    rows = [put(at) for at in range(first, last + 1)] + said.get("ops", [])
    ops = [Op(OpId(row[0]), said["bucket"], *row[1:]) for row in rows]
    return Page(said["bucket"], ops, said.get("has_more", False), said.get("is_overtaken", False))


def full(line: dict[str, Any]) -> dict[str, Any]:
    """A line of a transcript with its abbreviation written out."""
    if "puts" not in line.get("data", {}):
        return line
    body = dict(line["data"])
    first, last = body.pop("puts")
    names = ("op_id", "op", "object_type", "object_id", "subkey", "checksum", "data")
    puts = [dict(zip(names, [str(at), *put(at)[1:]], strict=True)) for at in range(first, last + 1)]
    return {"data": body | {"data": puts}}


def step(session: Session, event: dict[str, Any]) -> list[Line]:
    return (
        session.offer(offer_of(event["offer"])) if "offer" in event else session.take(page_of(event["page"]))
    )


@pytest.mark.parametrize("name,encoding", CASES)
def test_a_session_goes_as_the_transcript_says(name: str, encoding: Encoding) -> None:
    request = understood(GOLDEN[name]["request"])
    assert isinstance(request, Request)
    session = Session(request)
    for event in GOLDEN[name]["events"]:
        stream = b"".join(encode(line, encoding, raw_data=request.raw_data) for line in step(session, event))
        assert lines_of(stream, encoding.value) == [full(line) for line in event["lines"]]
        fetch = session.wanted()
        assert (fetch and [fetch.priority, fetch.upto, dict(fetch.buckets)]) == event["wanted"]
        assert session.may_interrupt == event.get("may_interrupt", fetch is None)


@pytest.mark.parametrize("name", FRESH)
def test_a_client_agrees_with_the_transcript(name: str) -> None:
    """The sums in the transcripts are true: a client verifies each that is completed."""
    client = Client()
    client.request()
    for event in GOLDEN[name]["events"]:
        for line in event["lines"]:
            client.take(full(line))
    assert client.is_complete


def test_there_are_transcripts_of_clients_that_come_back() -> None:
    assert len(GOLDEN) > 20 and len(GOLDEN) > len(FRESH) > 10


def offer(checkpoint: int, *buckets: str) -> Offer:
    totals = {bucket: Total(checkpoint, checkpoint) for bucket in buckets}
    return Offer(OpId(checkpoint), None, [Grant(bucket, 3) for bucket in buckets], [], totals)


def page(bucket: str, *op_ids: int, has_more: bool = False) -> Page:
    return Page(bucket, [Op(OpId(at), bucket, "PUT", "t", "1", "k", 1, "{}") for at in op_ids], has_more)


def begun(*buckets: str) -> Session:
    session = Session(Request())
    session.offer(offer(10, *buckets))
    return session


def test_a_checkpoint_is_not_offered_before_the_round_has_got_on() -> None:
    session = begun("a")
    with pytest.raises(AssertionError, match="once it has got on"):
        session.offer(offer(11, "a"))


def test_a_checkpoint_never_goes_back() -> None:
    with pytest.raises(AssertionError, match="never goes back"):
        begun().offer(offer(9))


@pytest.mark.parametrize(
    "wrong,why",
    [
        (page("b", 1), "nobody asked for"),
        (page("a", 11), "not asked for"),
        (page("a", 2, has_more=True)._replace(ops=page("b", 2).ops), "another bucket"),
        (page("a", has_more=True), "not the last"),
    ],
)
def test_what_was_not_asked_for_is_not_sent(wrong: Page, why: str) -> None:
    with pytest.raises(AssertionError, match=why):
        begun("a").take(wrong)


def test_no_op_is_sent_twice() -> None:
    session = begun("a")
    session.take(page("a", 1, 4, has_more=True))
    with pytest.raises(AssertionError, match="not asked for"):
        session.take(page("a", 4, 5))


def test_an_offer_that_fails_leaves_the_session_where_it_was() -> None:
    session = begun()
    broken = Offer(OpId(11), None, [Grant("a", 3)], [], {"a": ()})  # type: ignore[dict-item]  # what is broken
    with pytest.raises(TypeError):
        session.offer(broken)
    assert session.checkpoint == 10 and session.is_complete
    assert len(session.offer(offer(12, "a"))) == 1


def test_many_buckets_are_wanted_some_at_a_time() -> None:
    names = [f"b[{at}]" for at in range(FETCH_BUCKETS + 3)]
    session = begun(*names)
    wanted = []
    while fetch := session.wanted():
        wanted.append(len(fetch.buckets))
        for bucket in fetch.buckets:
            session.take(page(bucket))
    assert wanted == [FETCH_BUCKETS, 3] and session.is_complete


def test_a_session_grows_with_its_buckets_and_not_with_what_it_sent() -> None:
    session = Session(Request())
    session.offer(offer(100_000, "a"))
    session.take(page("a", 50_001, has_more=True))
    before = len(pickle.dumps(session))
    for at in range(51_000, 90_000, 1000):
        session.take(page("a", *range(at, at + 100), has_more=True))
    assert len(pickle.dumps(session)) - before < 16


def test_a_session_forgets_the_buckets_it_will_never_send() -> None:
    session = Session(Request(buckets={f"theirs[{at}]": OpId(1) for at in range(1000)}))
    session.offer(offer(10))
    assert b"theirs" not in pickle.dumps(session)


def test_of_an_overtaken_bucket_later_pages_do_not_complete_anything() -> None:
    session = begun("a")
    session.take(page("a", 1, has_more=True)._replace(is_overtaken=True))
    assert len(session.take(page("a", 2))) == 1
    assert not session.is_complete and session.wanted() is None
    session.offer(offer(10, "a"))
    assert session.wanted() is None
    later = Offer(OpId(11), None, [Grant("a", 3)], [], {"a": Total(10, 10)})
    assert len(session.offer(later)) == 1
    assert session.wanted() == (3, 11, {"a": 2})


def test_so_many_ops_make_a_round_that_may_be_interrupted() -> None:
    session = Session(Request())
    session.offer(offer(10_000, "a"))
    session.take(page("a", *range(1, INTERRUPT_OPS), has_more=True))
    assert not session.may_interrupt
    session.take(page("a", INTERRUPT_OPS, has_more=True))
    assert session.may_interrupt
