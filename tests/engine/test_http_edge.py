"""HTTP: the same services as JSON, CloudEvents one by one and in batches, and what is no request of ours."""

import asyncio
import gzip
import json
import logging
import socket
import zlib
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest
from aiohttp.test_utils import TestClient, TestServer
from yarl import URL

from engine.cloudevents import BATCH, ONE
from engine.gateway_letters import about, letter_type, shortened
from engine.limits import DEAD_LETTER_BYTES_MAX, MESSAGE_BYTES_MAX, MISFIT_LOOK_ENTRIES_MAX
from engine.web import WebServer, application
from opportune.v1 import events_pb2
from tests.small_engine import START_MS, SmallEngine, features_of

EVENT: dict[str, Any] = {
    "specversion": "1.0",
    "id": "e1",
    "source": "till",
    "type": "purchase",
    "subject": "ann",
    "time": "2025-06-15T15:00:00Z",
    "data": {"amount": 150, "category": "food", "abroad": False},
}
PERSON = {"customer_id": "ann", "channel": "branch"}


@pytest.fixture
def engine() -> SmallEngine:
    return SmallEngine()


@pytest.fixture
async def client(engine: SmallEngine) -> AsyncIterator[TestClient]:
    async with TestClient(TestServer(application(engine.service))) as client:
        yield client


async def post(client: TestClient, path: str, body: Any, content_type: str = "application/json") -> tuple[int, Any]:
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    response = await client.post(path, data=data, headers={"Content-Type": content_type})
    assert response.content_type == "application/json"
    return response.status, await response.json()


async def refused(client: TestClient, path: str, body: Any, content_type: str = "application/json") -> tuple[Any, ...]:
    """(HTTP status, status, message) of a refusal, after which a good request is still served."""
    status, answer = await post(client, path, body, content_type)
    assert set(answer) == {"error"}
    assert (await post(client, "/v1/decide", PERSON))[0] == 200
    return status, answer["error"]["status"], answer["error"]["message"]


async def test_a_conversation_over_http(client: TestClient) -> None:
    """Decide, report, explain and look at the customer: the fields are those of proto/, in snake_case."""
    status, decision = await post(client, "/v1/decide", PERSON | {"context": {"vip": {"flag": True}}, "limit": 1})
    assert status == 200
    [offer] = decision["offers"]
    outcome = {"outcome_id": "o1", "decision_id": decision["decision_id"], "offer_id": offer["offer_id"]}
    status, receipt = await post(client, "/v1/report", outcome | {"stage": "STAGE_ACCEPTED"})
    assert (status, receipt["stage"]) == (200, "STAGE_ACCEPTED")
    status, explanation = await post(client, "/v1/explain", {"decision_id": decision["decision_id"]})
    assert (status, explanation["context"]) == (200, {"vip": {"flag": True}})
    assert explanation["candidates"][0]["propensity"] == offer["propensity"]
    status, customer = await post(client, "/v1/customers", {"customer_id": "ann"})
    assert (status, customer["offers"][0]["stage"]) == (200, "STAGE_ACCEPTED")


@pytest.mark.parametrize(
    ("body", "content_type", "accepted"),
    [
        (EVENT, ONE, 1),
        (EVENT, f"{ONE}; charset=utf-8", 1),
        ([EVENT, EVENT | {"id": "e2"}], BATCH, 2),
        (EVENT, "application/json", 1),
        ([EVENT], "text/plain", 1),
    ],
)
async def test_cloud_events_become_state(
    client: TestClient, engine: SmallEngine, body: Any, content_type: str, accepted: int
) -> None:
    status, receipt = await post(client, "/v1/events", body, content_type)
    assert (status, receipt["accepted"], len(receipt["positions"])) == (200, accepted, accepted)
    await engine.fold()
    assert features_of(await engine.customer())["spent_30d"] == 150.0 * accepted


async def test_an_event_without_a_time_happens_now(client: TestClient, engine: SmallEngine) -> None:
    event = {name: value for name, value in EVENT.items() if name != "time"}
    await post(client, "/v1/events", event, ONE)
    await engine.fold()
    assert (await engine.customer()).state.latest_event_ms == START_MS


@pytest.mark.parametrize("time", ["2025-06-15t15:00:00z", "2025-06-15T17:00:00.0000000+02:00", "2025-06-15 15:00:00Z"])
async def test_a_time_is_written_as_the_standard_has_it(client: TestClient, engine: SmallEngine, time: str) -> None:
    assert (await post(client, "/v1/events", EVENT | {"time": time}, ONE))[0] == 200
    await engine.fold()
    assert (await engine.customer()).state.latest_event_ms == 1_749_999_600_000


async def test_the_good_events_of_a_batch_are_kept(client: TestClient, engine: SmallEngine) -> None:
    batch = [EVENT, EVENT | {"id": ""}, 7, EVENT | {"id": "e3", "data": {"amount": "much"}}, EVENT | {"id": "e4"}]
    status, receipt = await post(client, "/v1/events", batch, BATCH)
    assert (status, receipt["accepted"], len(engine.store.dead)) == (200, 2, 3)
    assert [(bad.get("index", 0), bad.get("id", "")) for bad in receipt["rejected"]] == [(1, ""), (2, ""), (3, "e3")]
    reasons = [bad["reason"] for bad in receipt["rejected"]]
    assert reasons[0].startswith("id: empty")
    assert reasons[1] == "event: 7, expected an object"
    assert reasons[2].startswith("attributes[amount]: 'much' is a text")


def nested(levels: int) -> dict[str, Any]:
    value: dict[str, Any] = {"x": 1}
    for _ in range(levels - 1):
        value = {"x": value}
    return value


async def test_an_event_too_deep_to_be_written_is_refused_alone(client: TestClient, engine: SmallEngine) -> None:
    """It can be read: more levels are than are written. Its dead letter ends where nobody reads any further."""
    deep = EVENT | {"id": "e2", "type": "moon", "data": nested(300)}
    status, receipt = await post(client, "/v1/events", [EVENT, nested(260), deep], BATCH)
    assert (status, receipt["accepted"]) == (200, 1)
    assert [(bad["index"], bad.get("id", "")) for bad in receipt["rejected"]] == [(1, ""), (2, "e2")]
    assert receipt["rejected"][0]["reason"] == "specversion: missing, expected '1.0'"
    letters = [json.loads(payload) for payload, _ in engine.store.dead]
    assert letters[1] | {"data": {}} == deep | {"data": {}}
    status, receipt = await post(client, "/v1/events", b"[" * 900 + b"]" * 900, BATCH)
    assert (status, receipt["rejected"][0]["reason"][:11]) == (400, "event: [[[[")
    assert receipt["rejected"][0]["reason"].endswith("characters), expected an object")
    wrong = EVENT | {"data": {"amount": nested(300)}}
    status, receipt = await post(client, "/v1/events", wrong, ONE)
    assert (status, receipt["rejected"][0]["reason"][:18]) == (400, 'data.amount: {"x":')
    assert len(engine.store.dead) == 4


async def test_what_is_not_declared_is_dropped_whatever_it_is(client: TestClient, engine: SmallEngine) -> None:
    """Producers may grow before the configuration does."""
    grown: dict[str, Any] = {"items": [1, 2], "till": {"id": 7}, "note": "x" * 257, "when": None, "big": 2**60}
    more = grown | {f"a{n}": n for n in range(65)} | {"deep": nested(300)}
    status, receipt = await post(client, "/v1/events", EVENT | {"data": EVENT["data"] | more}, ONE)
    assert (status, receipt["accepted"]) == (200, 1)
    await engine.fold()
    assert features_of(await engine.customer())["spent_30d"] == 150.0


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"specversion": "0.3"}, "specversion: '0.3', expected '1.0'"),
        ({"specversion": None}, "specversion: missing, expected '1.0'"),
        ({"specversion": 1.0}, "specversion: 1.0, expected '1.0'"),
        ({"id": 7}, "id: 7, expected a text"),
        ({"id": None}, "id: null, expected a text"),
        ({"id": "x" * 65}, "id: 65 bytes"),
        ({"source": ""}, "source: empty"),
        ({"type": "moon"}, "type: no event type 'moon' is declared; there are purchase, complaint"),
        ({"subject": ""}, "subject: empty"),
        ({"subject": "a\u0000b"}, "subject: 'a\\x00b' has U+0000"),
        ({"subject": "a\u00a0b"}, "subject: 'a\\xa0b' has U+00A0, expected printable text without it"),
        ({"data_base64": "YQ=="}, "data_base64: bytes have no attributes, expected data, an object"),
        ({"time": "2025-W24-7T15:00:00Z"}, "it is of another form"),
        ({"time": "20250615T150000Z"}, "it is of another form"),
        ({"time": "2025-06-15T15:00:00,5Z"}, "it is of another form"),
        ({"time": "2025-06-15T15:00:60Z"}, "second must be in 0..59"),
        ({"time": "yesterday"}, "time: 'yesterday', expected RFC 3339"),
        ({"time": "2025-06-15T15:00:00"}, "it has no time zone"),
        ({"time": "9999-12-31T23:59:59-23:00"}, "time: '9999"),
        ({"time": "0001-01-01T00:00:00Z"}, "time: '0001-01-01T00:00:00Z', expected RFC 3339"),
        ({"time": "1970-01-01T00:00:00Z"}, "it is not after 1970-01-01"),
        ({"time": 1750000000}, "time: 1750000000, expected RFC 3339"),
        ({"data": [1]}, "data: [1], expected an object"),
        ({"data": {}}, "attributes[amount]: missing"),
        ({"data": {"amount": 1e300}}, "attributes[amount]: 1e+300, expected 0.0 to 100000.0"),
        ({"data": {"amount": 2**60}}, "expected a number up to 2^53"),
        ({"data": {"amount": {"a": 1}}}, "expected a number, a text or true or false"),
        ({"data": {"amount": 1, "category": "x" * 257}}, "data.category: 257 bytes"),
        ({"time": False}, "time: false, expected RFC 3339 like 2026-05-04T09:30:00Z: it is no text"),
        ({"data": True}, "data: true, expected an object"),
    ],
)
async def test_a_bad_event_is_refused_with_its_reason(
    client: TestClient, engine: SmallEngine, change: dict, told: str
) -> None:
    """Nothing of the body was good, so the status tells too; the event is kept as a dead letter."""
    status, receipt = await post(client, "/v1/events", EVENT | change, ONE)
    assert status == 400
    [rejected] = receipt["rejected"]
    assert told in rejected["reason"]
    assert [(json.loads(payload), reason) for payload, reason in engine.store.dead] == [
        (EVENT | change, rejected["reason"])
    ]


async def test_of_a_large_event_that_is_refused_little_is_kept(client: TestClient, engine: SmallEngine) -> None:
    """Whom it is about stays, so that it goes when that person is to be forgotten."""
    status, receipt = await post(client, "/v1/events", EVENT | {"type": "none", "data": {"x": "y" * 4_000_000}}, ONE)
    assert status == 400 and "no event type 'none'" in receipt["rejected"][0]["reason"]
    [(payload, _)] = engine.store.dead
    assert json.loads(payload) == EVENT | {"type": "none", "data": "… (4000008 bytes left out)"}
    assert len(payload) <= DEAD_LETTER_BYTES_MAX
    assert about(payload, "", [EVENT["subject"]])
    large = events_pb2.Event(id="e" * 9_000, type="none", customer_id="ann")
    large.attributes["x"].text = "y" * 9_000
    short = shortened(large.SerializeToString(), DEAD_LETTER_BYTES_MAX)
    assert about(short, "", ["ann"]) and letter_type(short) == "none" and len(short) < 200
    assert shortened(b"\xff" * 9_000, DEAD_LETTER_BYTES_MAX) == b"\xff" * DEAD_LETTER_BYTES_MAX


@pytest.mark.parametrize(
    ("body", "content_type", "told"),
    [
        (b"", ONE, "body: not JSON"),
        (b"{", ONE, "body: not JSON"),
        (b'{"id": NaN}', ONE, "body: not JSON"),
        (b"\xff\xfe", ONE, "body: not JSON"),
        (b"[" * 100_000, BATCH, "body: not JSON"),
        ([1], ONE, "body: [1], expected one event, an object"),
        ({"id": "e1"}, BATCH, 'body: {"id":"e1"}, expected a list of events'),
        ([], BATCH, "body: 0 events, expected 1 to 1000"),
        ([EVENT] * 1_001, BATCH, "body: 1001 events, expected 1 to 1000"),
    ],
)
async def test_a_body_that_is_no_event_is_refused_whole(
    client: TestClient, body: Any, content_type: str, told: str
) -> None:
    status, name, message = await refused(client, "/v1/events", body, content_type)
    assert (status, name) == (400, "INVALID_ARGUMENT")
    assert told in message


@pytest.mark.parametrize("path", ["/v1/decide", "/v1/report", "/v1/explain", "/v1/customers"])
@pytest.mark.parametrize(
    "body",
    [
        b"", b"{", b"null", b"7", b"[]", b'"text"', b'{"customer_id": NaN}', b'{"customer_id": "\xff"}',
        b'{"customer_id": 7}', b'{"no_such_field": 1}', b"[" * 100_000, b'{"customer_id": "\\ud800"}',
        b'{"decision_id": {"a": 1}}', b'{"time_ms": "soon"}', b'{"customer_id": ' + b'{"a":' * 5_000,
    ],
    ids=lambda body: body[:24].decode(errors="replace"),
)  # fmt: skip
async def test_a_body_that_is_no_request_is_refused(client: TestClient, path: str, body: bytes) -> None:
    status, name, message = await refused(client, path, body)
    assert (status, name) == (400, "INVALID_ARGUMENT")
    fields = ("customer_id: ", "outcome_id: ", "decision_id: ", "no_such_field: ", "time_ms: ")
    assert message.startswith(("body: ", *fields))


@pytest.mark.parametrize(
    ("path", "body", "told"),
    [
        ("decide", {"context": {"minutes": 5}}, 'context["minutes"]: 5, expected an object like {"number": 1}'),
        ("decide", {"context": {"month": "jan"}}, 'context["month"]: "jan", expected an object like {"number": 1}'),
        ("decide", {"context": {"vip": {"flag": True}, "attempt": None}}, 'context["attempt"]: null, expected an obj'),
        ("decide", {"context": {"month": {"text": 5}}}, 'context["month"].text: 5, expected a text'),
        ("decide", {"context": {"vip": {"flag": 1}}}, 'context["vip"].flag: 1, expected true or false'),
        ("decide", {"context": {"a": {"flag": True, "text": "b"}}}, 'context["a"].text: it is there together with fla'),
        ("decide", {"context": {"a": {"date": "b"}}}, 'context["a"].date: no such field; there are number, text, flag'),
        ("decide", {"context": [1]}, 'context: [1], expected an object with an object like {"number": 1} for each'),
        ("decide", {"identities": ["cookie=c7"]}, 'identities[0]: "cookie=c7", expected an object like {"kind": "…", '),
        ("decide", {"identities": [{}, {"kind": []}]}, "identities[1].kind: [], expected a text"),
        ("decide", {"identities": {"kind": "cookie"}}, 'identities: {"kind":"cookie"}, expected a list'),
        ("decide", {"limit": -1}, "limit: -1, expected a whole number from 0 to 2^32 - 1"),
        ("decide", {"purposes": ["a", 7]}, "purposes[1]: 7, expected a text"),
        ("decide", {"resume": "1-2-3"}, 'resume: "1-2-3", expected an object like {"decision_id": "…", "offer_id": '),
        ("decide", {"customerid": "x" * 200}, "customerid: no such field; there are "),
        ("report", {"attributes": {"a": 1}}, 'attributes["a"]: 1, expected an object like {"number": 1}'),
        ("report", {"rewards": {"revenue": "much"}}, 'rewards["revenue"]: "much", expected a number'),
        ("report", {"stage": "ACCEPTED"}, 'stage: "ACCEPTED", expected one of STAGE_PRESENTED, STAGE_ACCEPTED, '),
        ("report", {"stage": 2**32 + 3}, "stage: 4294967299, expected one of STAGE_PRESENTED, "),
        ("report", {"stage": 3 - 2**32}, "stage: -4294967293, expected one of "),
        ("report", {"stage": 2**40}, "stage: 1099511627776, expected one of "),
        ("report", {"stage": 3.5}, "stage: 3.5, expected one of "),
        ("report", {"stage": 3.999}, "stage: 3.999, expected one of "),
        ("report", {"stage": -0.5}, "stage: -0.5, expected one of "),
        ("report", {"stage": True}, "stage: true, expected one of "),
        ("report", {"stage": " 3 "}, 'stage: " 3 ", expected one of '),
        ("report", {"stage": "٣"}, 'stage: "٣", expected one of '),
        ("report", {"stage": "1_1"}, 'stage: "1_1", expected one of '),
        ("report", {"stage": []}, "stage: [], expected one of "),
        ("report", {"value": True}, "value: true, expected a number"),
        ("report", {"value": "1_000"}, 'value: "1_000", expected a number'),
        ("report", {"value": "٣"}, 'value: "٣", expected a number'),
        ("report", {"value": " 3"}, 'value: " 3", expected a number'),
        ("report", {"rewards": {"revenue": False}}, 'rewards["revenue"]: false, expected a number'),
        ("report", {"time_ms": "1_795"}, 'time_ms: "1_795", expected a whole number from -2^63 to 2^63 - 1'),
        ("decide", {"limit": "1_0"}, 'limit: "1_0", expected a whole number from 0 to 2^32 - 1'),
        ("decide", {"context": {"minutes": {"number": True}}}, 'context["minutes"].number: true, expected a number'),
        ("decide", {"customerId": "ann", "customer_id": "bob"}, "customer_id: it is there together with customerId"),
        ("decide", {"customer_id": "ann", "customerId": None}, "customerId: it is there together with customer_id, ex"),
        ("leads/complete", {"outcome": "DONE"}, 'outcome: "DONE", expected one of STAGE_ACCEPTED, STAGE_DECLINED, '),
        ("customers", {"kinds": [1, 1.5]}, "kinds[1]: 1.5, expected one of TIMELINE_KIND_CONTACT, "),
        ("report", {"value": "x" * 200}, f'value: "{"x" * 79}… (202 characters), expected a number'),
        ("policies/propose", {"text": 7}, "text: 7, expected a text in base64"),
    ],
)
async def test_a_field_that_does_not_fit_is_named(client: TestClient, path: str, body: Any, told: str) -> None:
    status, name, message = await refused(client, f"/v1/{path}", body)
    assert (status, name) == (400, "INVALID_ARGUMENT")
    assert message.startswith(told)


@pytest.mark.parametrize("stage", ["STAGE_ACCEPTED", 3, 3.0, "3"])
@pytest.mark.parametrize("value", [7, 7.0, "7", "7.0", "7e0"])
async def test_a_number_is_taken_as_the_mapping_has_it(client: TestClient, stage: Any, value: Any) -> None:
    _, decision = await post(client, "/v1/decide", PERSON | {"limit": value})
    outcome = {"outcome_id": "o1", "decisionId": decision["decision_id"], "offer_id": decision["offers"][0]["offer_id"]}
    status, receipt = await post(client, "/v1/report", outcome | {"stage": stage, "value": value, "time_ms": None})
    assert (status, receipt["stage"]) == (200, "STAGE_ACCEPTED")


async def test_a_report_without_a_stage_is_told_the_stages_that_it_may_have(client: TestClient) -> None:
    outcome = {"outcome_id": "o1", "decision_id": "0-1-0", "offer_id": "card"}
    _, _, message = await refused(client, "/v1/report", outcome)
    told, _, names = message.partition(", expected one of ")
    assert told == "stage: missing"
    for name in names.split(", "):
        assert (await refused(client, "/v1/report", outcome | {"stage": name}))[:2] == (404, "NOT_FOUND")
    assert "STAGE_UNSPECIFIED" not in names and "STAGE_SERVED" not in names and "STAGE_EXPIRED" not in names


async def test_a_field_that_does_not_fit_is_looked_for_within_bounds(client: TestClient) -> None:
    given = {"identities": [{} for _ in range(MISFIT_LOOK_ENTRIES_MAX)] + [7]}
    assert (await refused(client, "/v1/decide", given))[2].startswith("body: no DecideRequest in JSON: Failed to parse")


async def test_a_customer_is_a_page_of_its_own(client: TestClient) -> None:
    """GET with the fields of the request as parameters gives what POST gives; names are taken as they are spelt."""
    for number in range(3):
        await post(client, "/v1/decide", PERSON | {"customer_id": "a/b é", "request_id": f"{number}"})
    asked = {"page_size": "2", "kinds": "TIMELINE_KIND_DECISION", "channels": "branch", "time_ms": f"{START_MS}"}
    response = await client.get("/v1/customers/a%2Fb%20%C3%A9", params=asked)
    answer = await response.json()
    assert (response.status, answer["customer_id"], len(answer["timeline"])) == (200, "a/b é", 2)
    body = {**asked, "kinds": ["TIMELINE_KIND_DECISION"], "channels": ["branch"], "customer_id": "a/b é"}
    assert await post(client, "/v1/customers", body) == (200, answer)
    asked["page_token"] = answer["next_page_token"]
    rest = await (await client.get("/v1/customers/a%2Fb%20%C3%A9", params=asked)).json()
    assert (len(rest["timeline"]), "next_page_token" in rest) == (1, False)
    twice = await client.get("/v1/customers/a%2Fb%20%C3%A9?kinds=TIMELINE_KIND_NOTE&kinds=TIMELINE_KIND_OUTCOME")
    assert "timeline" not in await twice.json()


@pytest.mark.parametrize(
    ("query", "told"),
    [
        ("page_size=501", "page_size: 501, expected 1 to 500"),
        ("page_size=many", "query: "),
        ("page_size=-1", "query: "),
        ("page_size=1_0", 'query: page_size: "1_0", expected a whole number'),
        ("time_ms=1_795", 'query: time_ms: "1_795", expected a whole number'),
        ("page_size=1&page_size=2", "query: page_size is there 2 times, expected once"),
        ("kinds=WHAT", "query: "),
        ("kinds=TIMELINE_KIND_UNSPECIFIED", "kinds[0]: missing, expected one of TIMELINE_KIND_CONTACT"),
        ("page_token=x", "page_token: 'x' is none"),
        ("colour=red", "query: no parameter 'colour'; there are time_ms, page_size, page_token, kinds"),
        ("customer_id=bob", "query: no parameter 'customer_id'"),
        ("identities=x", "query: no parameter 'identities'"),
        ("time_ms=soon", "query: "),
    ],
)
async def test_a_wrong_parameter_is_refused(client: TestClient, query: str, told: str) -> None:
    response = await client.get(f"/v1/customers/ann?{query}")
    error = (await response.json())["error"]
    assert (response.status, error["status"]) == (400, "INVALID_ARGUMENT")
    assert error["message"].startswith(told)


@pytest.mark.parametrize(
    ("path", "body", "expected"),
    [
        ("/v1/decide", PERSON | {"channel": "moon"}, (400, "INVALID_ARGUMENT", "channel: no channel 'moon'")),
        ("/v1/decide", PERSON | {"context": {"minutes": {"number": "NaN"}}}, (400, "INVALID_ARGUMENT", "a finite")),
        ("/v1/explain", {"decision_id": "0-1-0"}, (404, "NOT_FOUND", "no decision '0-1-0'")),
        ("/v1/nothing", {}, (404, "NOT_FOUND", "path: '/v1/nothing': Not Found; docs/api.md has them all")),
        ("/metrics", {}, (405, "INVALID_ARGUMENT", "path: POST '/metrics': Method Not Allowed, expected GET, HEAD")),
    ],
)
async def test_a_refusal_has_the_status_of_its_error(
    client: TestClient, path: str, body: Any, expected: tuple[int, str, str]
) -> None:
    status, name, message = await refused(client, path, body)
    assert (status, name) == expected[:2]
    assert expected[2] in message


async def test_a_method_that_a_path_does_not_take_is_told_those_that_it_does(client: TestClient) -> None:
    for path, allowed in (("/v1/decide", "POST"), ("/v1/customers/ann", "DELETE, GET, HEAD")):
        answer = await client.put(path)
        assert (answer.status, answer.headers["Allow"]) == (405, allowed)


@pytest.mark.parametrize("path", ["decide", "decide-many", "report", "policies/propose"])
async def test_a_parameter_that_nobody_looks_at_is_refused(client: TestClient, path: str) -> None:
    status, name, message = await refused(client, f"/v1/{path}?dry_run=true", PERSON)
    assert (status, name) == (400, "INVALID_ARGUMENT")
    assert message == "query: no parameter 'dry_run', expected all of the request in its body"


async def test_nobody_is_told_what_the_server_is_made_of(port: int) -> None:
    for request in (b"GET /healthz HTTP/1.1\r\nHost: engine\r\n\r\n", b"GET / FOO\r\n\r\n"):
        assert b"Server: opportune\r\n" in await said(port, request)


async def test_a_move_that_is_not_allowed_is_a_conflict(client: TestClient) -> None:
    _, decision = await post(client, "/v1/decide", PERSON | {"limit": 1})
    outcome = {"decision_id": decision["decision_id"], "offer_id": decision["offers"][0]["offer_id"]}
    await post(client, "/v1/report", outcome | {"outcome_id": "1", "stage": "STAGE_DECLINED"})
    status, name, message = await refused(
        client, "/v1/report", outcome | {"outcome_id": "2", "stage": "STAGE_ACCEPTED"}
    )
    assert (status, name) == (409, "FAILED_PRECONDITION")
    assert "is DECLINED" in message


async def test_an_outcome_is_corrected_over_http(client: TestClient) -> None:
    _, decision = await post(client, "/v1/decide", PERSON | {"limit": 1})
    outcome = {"decision_id": decision["decision_id"], "offer_id": decision["offers"][0]["offer_id"]}
    await post(client, "/v1/report", outcome | {"outcome_id": "1", "stage": "STAGE_DECLINED"})
    correction = outcome | {"outcome_id": "2", "stage": "STAGE_CLICKED", "corrects": "1"}
    status, receipt = await post(client, "/v1/report", correction)
    assert (status, receipt["stage"]) == (200, "STAGE_CLICKED")
    rewards = outcome | {"outcome_id": "3", "stage": "STAGE_ACCEPTED", "rewards": {"revenue": "NaN"}}
    assert await refused(client, "/v1/report", rewards) == (
        400, "INVALID_ARGUMENT", "rewards['revenue']: no such objective is declared; there are none",
    )  # fmt: skip


@pytest.mark.parametrize("path", ["/v1/decide", "/v1/events"])
async def test_a_body_beyond_the_limit_is_refused(client: TestClient, path: str) -> None:
    status, name, message = await refused(client, path, b" " * (10 * 1024 * 1024))
    assert (status, name) == (413, "RESOURCE_EXHAUSTED")
    assert str(MESSAGE_BYTES_MAX) in message


@pytest.mark.parametrize("encoding", ["gzip", "deflate"])
async def test_a_body_of_another_encoding_than_it_says_is_refused(client: TestClient, encoding: str) -> None:
    response = await client.post("/v1/decide", data=b'{"customer_id": "ann"}', headers={"Content-Encoding": encoding})
    error = (await response.json())["error"]
    assert (response.status, error["status"]) == (400, "INVALID_ARGUMENT")
    assert error["message"].startswith(f"body: cannot be read, expected one in Content-Encoding '{encoding}'")


async def test_a_path_that_is_no_text_is_nobodys(client: TestClient) -> None:
    """The customer who is called "%FF" is another matter."""
    for answer in (
        await client.get(URL("/v1/customers/%FF", encoded=True)),
        await client.delete(URL("/v1/customers/%FF?request_id=r", encoded=True)),
        await client.get(URL("/v1/customers/ann?page_token=%FF", encoded=True)),
    ):
        error = (await answer.json())["error"]
        assert (answer.status, error["status"]) == (400, "INVALID_ARGUMENT")
        assert "%FF" in error["message"] and "expected UTF-8" in error["message"]
    answer = await client.get(URL("/v1/customers/%25FF", encoded=True))
    assert (answer.status, (await answer.json())["customer_id"]) == (200, "%FF")


@pytest.fixture
async def port(engine: SmallEngine, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[int]:
    """Of a server that waits for 200 ms."""
    monkeypatch.setattr("engine.web.HTTP_REQUEST_MS_MAX", 200)
    monkeypatch.setattr("engine.web.HTTP_IDLE_MS_MAX", 400)
    server = WebServer(engine.service)
    yield await server.start("127.0.0.1", 0)
    await server.stop()


async def said(port: int, request: bytes) -> bytes:
    """What the server says to a caller who sends this and no more, until it hangs up."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(request)
    try:
        async with asyncio.timeout(2.0):
            return await reader.read()
    finally:
        writer.close()


@pytest.mark.parametrize("request_", [b"", b"POST /v1/decide HTTP/1.1\r\nHost: engine\r\n"], ids=["silent", "headers"])
async def test_who_never_asks_is_not_waited_for(port: int, request_: bytes) -> None:
    assert await said(port, request_) == b""


@pytest.mark.parametrize(
    ("request_", "told"),
    [
        (b"GET / FOO\r\n\r\n", "Bad status line"),
        (b"GET /healthz HTTP/1.1\r\nHost engine\r\n\r\n", "Invalid header token"),
        (b"POST /v1/decide HTTP/1.1\r\nHost: engine\r\nContent-Length: x\r\n\r\n", "Invalid character in Content-L"),
        (b"GET /healthz HTTP/1.1\r\nHost: engine\r\nX: " + b"x" * 10_000 + b"\r\n\r\n", "Got more than 8190 bytes"),
    ],
)
async def test_what_is_no_http_is_one_line_of_the_log(
    port: int, caplog: pytest.LogCaptureFixture, request_: bytes, told: str
) -> None:
    assert b" 400 Bad Request\r\n" in await said(port, request_)
    [record] = caplog.records
    assert (record.levelname, record.exc_info) == ("WARNING", None)
    assert told in record.message and "\n" not in record.message and len(record.message) < 300


def packed_request(body: bytes, encoding: str, path: str = "/v1/decide") -> bytes:
    packing = f"Content-Encoding: {encoding}\r\nContent-Length: {len(body)}"
    return f"POST {path} HTTP/1.1\r\nHost: engine\r\n{packing}\r\n\r\n".encode() + body


PLAIN = json.dumps(PERSON).encode()
RAW = zlib.compressobj(wbits=-zlib.MAX_WBITS)
THEN = b"GET /healthz HTTP/1.1\r\nHost: engine\r\nConnection: close\r\n\r\n"


@pytest.mark.parametrize(
    ("body", "encoding", "status", "told"),
    [
        (gzip.compress(PLAIN), "gzip", b"200 OK", "decision_id"),
        (gzip.compress(PLAIN), "GZIP", b"200 OK", "decision_id"),
        (zlib.compress(PLAIN), "deflate", b"200 OK", "decision_id"),
        (RAW.compress(PLAIN) + RAW.flush(), "deflate", b"200 OK", "decision_id"),
        (PLAIN, "identity", b"200 OK", "decision_id"),
        (PLAIN, "gzip", b"400 Bad Request", "body: cannot be read, expected one in Content-Encoding 'gzip'"),
        (b"x" * 100_000, "deflate", b"400 Bad Request", "body: cannot be read, expected one in Content-Encoding 'defl"),
        (gzip.compress(PLAIN)[:-9], "gzip", b"400 Bad Request", "in Content-Encoding 'gzip': it is cut"),
        (gzip.compress(PLAIN) + b"x", "gzip", b"400 Bad Request", "'gzip': there is more behind it"),
        (b"", "gzip", b"400 Bad Request", "'gzip': it is cut"),
        (PLAIN, "foo", b"400 Bad Request", "Content-Encoding: 'foo', expected one of gzip, deflate, identity"),
        (PLAIN, "br", b"400 Bad Request", "Content-Encoding: 'br', expected one of gzip, deflate, identity"),
        (gzip.compress(b" " * 2 * MESSAGE_BYTES_MAX), "gzip", b"413 Request Entity Too Large", "body: larger than"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
async def test_a_packed_body_costs_neither_the_connection_nor_the_log(
    port: int, caplog: pytest.LogCaptureFixture, body: bytes, encoding: str, status: bytes, told: str
) -> None:
    """It is answered, and so is the next request of the connection."""
    answer = await said(port, packed_request(body, encoding) + THEN)
    assert answer.startswith(b"HTTP/1.1 " + status)
    assert told.encode() in answer
    assert answer.endswith(b"ok")
    assert caplog.records == []


async def test_a_packed_body_that_nobody_reads_harms_nobody(port: int, caplog: pytest.LogCaptureFixture) -> None:
    answer = await said(port, packed_request(b"garbage", "gzip", "/v1/nothing") + THEN)
    assert answer.startswith(b"HTTP/1.1 404")
    assert answer.endswith(b"ok")
    assert caplog.records == []


async def test_who_does_not_ask_again_is_not_waited_for(port: int) -> None:
    assert (await said(port, b"GET /healthz HTTP/1.1\r\nHost: engine\r\n\r\n")).startswith(b"HTTP/1.1 200")


async def test_a_body_that_does_not_come_is_not_waited_for(port: int) -> None:
    headers = b"POST /v1/decide HTTP/1.1\r\nHost: engine\r\nContent-Length: 100\r\n\r\n"
    answer = await said(port, headers + b'{"cust')
    assert answer.startswith(b"HTTP/1.1 408")
    assert b'"DEADLINE_EXCEEDED","message":"body: not all of it came within 200 ms"' in answer


async def test_a_body_that_says_it_is_too_large_is_refused_before_it_comes(port: int) -> None:
    headers = b"POST /v1/decide HTTP/1.1\r\nHost: engine\r\nContent-Length: 10000000000\r\n\r\n"
    answer = await said(port, headers + b"{}")
    assert answer.startswith(b"HTTP/1.1 413")


async def test_a_caller_who_leaves_within_a_body_is_no_fault(port: int, caplog: pytest.LogCaptureFixture) -> None:
    _, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(b"POST /v1/decide HTTP/1.1\r\nHost: engine\r\nContent-Length: 100\r\n\r\n{")
    await asyncio.sleep(0.05)
    writer.transport.abort()
    await asyncio.sleep(0.05)
    assert [record for record in caplog.records if record.levelno >= logging.WARNING] == []


async def test_it_listens_on_ipv6(engine: SmallEngine) -> None:
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        pytest.skip("this machine has no IPv6")
    server = WebServer(engine.service)
    port = await server.start("[::1]", 0)
    try:
        async with aiohttp.ClientSession(f"http://[::1]:{port}") as session:
            assert (await session.get("/healthz")).status == 200
    finally:
        await server.stop()


async def test_metrics_and_health_on_a_real_port(engine: SmallEngine) -> None:
    """What Prometheus scrapes counts what happened; a load balancer gets its ok."""
    server = WebServer(engine.service)
    port = await server.start("127.0.0.1", 0)
    try:
        async with aiohttp.ClientSession(f"http://127.0.0.1:{port}") as session:

            async def metric(name: str) -> float:
                response = await session.get("/metrics")
                assert response.headers["Content-Type"].startswith("text/plain; version=")
                lines = [line for line in (await response.text()).splitlines() if line.startswith(name + " ")]
                return float(lines[0].split()[-1]) if lines else 0.0

            before = await metric('opportune_decisions_total{degraded="no"}')
            bad = await metric('opportune_refused_total{status="INVALID_ARGUMENT"}')
            assert (await session.post("/v1/decide", json=PERSON)).status == 200
            assert (await session.post("/v1/decide", json={})).status == 400
            assert await metric('opportune_decisions_total{degraded="no"}') == before + 1
            assert await metric('opportune_refused_total{status="INVALID_ARGUMENT"}') == bad + 1
            health = await session.get("/healthz")
            assert (health.status, await health.text()) == (200, "ok")
    finally:
        await server.stop()
