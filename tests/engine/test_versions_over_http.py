"""Versions over HTTP: the text as it is or in JSON, and refusals as on every other route."""

import base64
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
from aiohttp.test_utils import TestClient, TestServer

from engine.config import version_of
from engine.limits import MESSAGE_BYTES_MAX
from engine.versions import Versions
from engine.web import application
from tests.small_engine import CONFIG, SmallEngine

STRICT = CONFIG.replace(b"limit: 3\n", b"limit: 3\ngovernance: {approvals: 1}\n")
DEARER = STRICT.replace(b"value: 40", b"value: 400")
WRONG = b"opportune: 1\nname: x\n"


@pytest.fixture
async def client() -> AsyncIterator[TestClient]:
    engine = SmallEngine(STRICT)
    await Versions(engine.store, engine.clock).settle(engine.catalogue.version, lambda: STRICT)
    engine.now_ms += 1
    async with TestClient(TestServer(application(engine.service))) as client:
        yield client


async def post(client: TestClient, path: str, body: Any = None, text: bytes | None = None) -> tuple[int, Any]:
    data = json.dumps(body).encode() if text is None else text
    headers = {"Content-Type": "application/json" if text is None else "application/yaml"}
    response = await client.post(f"/v1/policies/{path}", data=data, headers=headers)
    assert response.content_type == "application/json"
    return response.status, await response.json()


async def listed(client: TestClient, query: str = "") -> tuple[int, Any]:
    response = await client.get(f"/v1/policies{query}")
    return response.status, await response.json()


async def test_a_version_is_proposed_approved_and_gone_back_from(client: TestClient) -> None:
    new, old = version_of(DEARER), version_of(STRICT)
    assert await post(client, "propose?by=ann&dry_run=true", text=DEARER) == (
        200, {"version": new, "state": "proposed", "before": old, "approvals_missing": 1},
    )  # fmt: skip
    assert len((await listed(client))[1]["versions"]) == 1, "a dry run leaves nothing behind"
    status, proposed = await post(client, "propose?by=ann&note=summer%20rates&dry_run=false", text=DEARER)
    assert (status, proposed["state"]) == (200, "proposed")
    status, approved = await post(client, "approve", {"version": new[:8], "by": "bob"})
    assert (status, approved) == (200, {"version": new, "state": "active", "before": old})
    status, history = await listed(client, "?limit=1")
    [row] = history["versions"]
    assert (status, history["active"], row["note"], row["approved_by"]) == (200, new, "summer rates", ["bob"])
    status, back = await post(client, "rollback", {"by": "bob"})
    assert (status, back) == (200, {"version": old, "state": "active", "before": new})
    status, history = await post(client, "list", {})
    assert (status, [row["state"] for row in history["versions"]]) == (200, ["kept", "active"])


async def test_a_text_is_the_body_or_base64_in_json(client: TestClient) -> None:
    for text in (STRICT, WRONG):
        plain = await post(client, "validate", text=text)
        assert plain == await post(client, "validate", {"text": base64.b64encode(text).decode()})
        assert plain[0] == 200, "a text that is wrong is no error of the call"
    assert plain[1]["problems"][0].startswith("text:1: channels")
    encoded = {"text": base64.encodebytes(DEARER).decode(), "by": "ann"}
    assert (await post(client, "propose", encoded))[1]["state"] == "proposed"


@pytest.mark.parametrize(
    ("path", "body", "text", "expected"),
    [
        ("propose?by=ann", None, WRONG, (400, "INVALID_ARGUMENT", "text:1: offers")),
        ("propose", None, DEARER, (400, "INVALID_ARGUMENT", "by: ''")),
        ("propose?by=ann&by=bob", None, DEARER, (400, "INVALID_ARGUMENT", "query: by is there 2 times")),
        ("propose?by=ann&dry_run=1", None, DEARER, (400, "INVALID_ARGUMENT", "dry_run is '1', expected true or false")),
        ("propose?who=ann", None, DEARER, (400, "INVALID_ARGUMENT", "no parameter 'who'; there are by, note, dry_run")),
        ("validate?by=ann", None, DEARER, (400, "INVALID_ARGUMENT", "no parameter 'by'; there are none")),
        ("propose", {"text": WRONG.decode(), "by": "ann"}, None, (400, "INVALID_ARGUMENT", "text: no base64; the ")),
        ("propose", {"text": 7, "by": "ann"}, None, (400, "INVALID_ARGUMENT", "text: 7, expected a text in base64")),
        ("propose", [], None, (400, "INVALID_ARGUMENT", "body: [], expected an object, a ProposeR")),
        ("propose?by=ann", None, b" " * (MESSAGE_BYTES_MAX + 1), (413, "RESOURCE_EXHAUSTED", str(MESSAGE_BYTES_MAX))),
        ("approve", {"version": "abcdef", "by": "bob"}, None, (404, "NOT_FOUND", "no such version is known here")),
        ("approve", {"version": version_of(DEARER), "by": "ann"}, None, (409, "FAILED_PRECONDITION", "cannot approve")),
        ("rollback", {"by": "bob"}, None, (409, "FAILED_PRECONDITION", "name the one")),
        ("rollback", [], None, (400, "INVALID_ARGUMENT", "expected an object")),
        ("list", {"limit": -1}, None, (400, "INVALID_ARGUMENT", "limit: -1, expected a whole number")),
    ],
)
async def test_what_is_refused_says_why_and_changes_nothing(
    client: TestClient, path: str, body: Any, text: bytes | None, expected: tuple[int, str, str]
) -> None:
    await post(client, "propose?by=ann", text=DEARER)
    before = await listed(client)
    status, answer = await post(client, path, body, text)
    assert set(answer) == {"error"}
    assert (status, answer["error"]["status"]) == expected[:2]
    assert expected[2] in answer["error"]["message"]
    assert await listed(client) == before


async def test_a_list_takes_its_limit_as_a_parameter(client: TestClient) -> None:
    for query, told in (("?limit=many", "query: "), ("?by=ann", "no parameter 'by'; there are limit")):
        status, answer = await listed(client, query)
        assert (status, answer["error"]["status"]) == (400, "INVALID_ARGUMENT")
        assert told in answer["error"]["message"]
