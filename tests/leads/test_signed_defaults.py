"""Signed lists: what is signed, byte for byte, and that nothing but that passes."""

import base64
import stat
from pathlib import Path
from typing import Any

import orjson
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from engine.errors import DataFolderError, InvalidArgument, Unavailable
from engine.signing import KeyFolder, SignatureError, canonical, key_id_of, public_key_of, signed, verified, version_of
from opportune.v1 import defaults_pb2
from tests.small_engine import CONFIG, DAY_MS, START_MS, SmallEngine

KEY = Ed25519PrivateKey.from_private_bytes(
    bytes.fromhex("9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60")
)
"""The first test key of RFC 8032."""
PAYLOAD: dict[str, Any] = {
    "form": "opportune.defaults.v1",
    "configuration": "shop",
    "config_version": "03e035b9efbd2dfa",
    "channel": "branch",
    "placement": "",
    "language": "cs",
    "issued_ms": 1_750_000_000_000,
    "valid_until_ms": 1_750_604_800_000,
    "offers": [
        {"offer_id": "card", "rank": 1, "kind": "sale", "category": "", "treatment": "Karta \"na\" každý den\n",
         "from_ms": 0, "until_ms": 253_402_300_799_999},
    ],
    "version": "1f743736459cbac2",
}  # fmt: skip
KEY_ID = "21fe31dfa154a261"
SIGNED_BYTES = (
    'opportune.defaults.v1\n{"channel":"branch","config_version":"03e035b9efbd2dfa","configuration":"shop",'
    '"form":"opportune.defaults.v1","issued_ms":1750000000000,"language":"cs","offers":[{"category":"","from_ms":0,'
    '"kind":"sale","offer_id":"card","rank":1,"treatment":"Karta \\"na\\" každý den\\n","until_ms":253402300799999}],'
    '"placement":"","valid_until_ms":1750604800000,"version":"1f743736459cbac2"}'
).encode()
VECTOR = "Au9Yf4YcU1bWOY4x+hU/Iy1OUX7BxTCf2f3UbEal8QCGrKTIrWwEAibOSP8oWIlKszT5nP+ciMiPmwRbEa8lBQ=="
NOW_MS = 1_750_000_000_001


def keys(*private: Ed25519PrivateKey) -> dict[str, Any]:
    return {key_id_of(key.public_key()): key.public_key() for key in private or (KEY,)}


def test_the_bytes_that_are_signed_are_these() -> None:
    assert b"opportune.defaults.v1\n" + canonical(PAYLOAD) == SIGNED_BYTES
    assert key_id_of(KEY.public_key()) == KEY_ID
    document = orjson.loads(signed(PAYLOAD, KEY))
    assert document["signature"] == base64.b64encode(KEY.sign(SIGNED_BYTES)).decode() == VECTOR
    assert verified(signed(PAYLOAD, KEY).encode(), keys(), NOW_MS) == PAYLOAD


def test_white_space_and_order_do_not_matter() -> None:
    document = orjson.loads(signed(PAYLOAD, KEY))
    shuffled = dict(reversed(document.items())) | {"payload": dict(reversed(document["payload"].items()))}
    assert verified(orjson.dumps(shuffled, option=orjson.OPT_INDENT_2), keys(), NOW_MS) == PAYLOAD


def changed(**fields: Any) -> bytes:
    document = orjson.loads(signed(PAYLOAD, KEY))
    document["payload"] |= fields
    return orjson.dumps(document)


@pytest.mark.parametrize(
    ("document", "at_ms", "message"),
    [
        (changed(channel="web"), NOW_MS, "one of the two was changed"),
        (changed(valid_until_ms=PAYLOAD["valid_until_ms"] + 1), NOW_MS, "one of the two was changed"),
        (changed(offers=[]), NOW_MS, "one of the two was changed"),
        (changed(more=1), NOW_MS, "one of the two was changed"),
        (changed(issued_ms=1.5), NOW_MS, r"payload.issued_ms: 1.5, expected a text, an integer"),
        (changed(issued_ms=None), NOW_MS, "payload.issued_ms: None"),
        (changed(issued_ms=1 << 60), NOW_MS, r"within ±2\^53"),
        (changed(é=1), NOW_MS, "expected ASCII"),
        (signed(PAYLOAD, KEY).encode(), PAYLOAD["valid_until_ms"], "expired at 1750604800000"),
        (signed(PAYLOAD, KEY).encode(), PAYLOAD["issued_ms"] - 1, "issued at 1750000000000, which is after"),
        (signed(PAYLOAD, Ed25519PrivateKey.generate()).encode(), NOW_MS, f"the keys to verify with are {KEY_ID}"),
        (signed(PAYLOAD | {"form": "other"}, KEY).encode(), NOW_MS, "payload.form: 'other'"),
        (signed({"form": PAYLOAD["form"]}, KEY).encode(), NOW_MS, "payload.configuration: None, expected str"),
        (b"", NOW_MS, "no JSON"),
        (b"[]", NOW_MS, "expected an object with payload"),
        (b'{"payload": {}, "key_id": "a"}', NOW_MS, "expected an object with payload"),
        (b'{"payload": [], "key_id": "a", "signature": ""}', NOW_MS, "expected payload to be an object"),
        (b'{"payload": {}, "key_id": "%s", "signature": "!"}' % KEY_ID.encode(), NOW_MS, "no base64"),
        (b'{"payload": {}, "key_id": "%s", "signature": ""}' % KEY_ID.encode(), NOW_MS, "one of the two was changed"),
        (b"[" * 5_000, NOW_MS, "no JSON"),
    ],
)
def test_anything_else_is_refused(document: bytes, at_ms: int, message: str) -> None:
    with pytest.raises(SignatureError, match=message):
        verified(document, keys(), at_ms)


def test_every_byte_of_the_signature_counts() -> None:
    document = orjson.loads(signed(PAYLOAD, KEY))
    signature = base64.b64decode(document["signature"])
    for at in range(64):
        document["signature"] = base64.b64encode(
            signature[:at] + bytes([signature[at] ^ 1]) + signature[at + 1 :]
        ).decode()
        with pytest.raises(SignatureError):
            verified(orjson.dumps(document), keys(), NOW_MS)


def test_keys_are_the_owners_alone_and_old_ones_still_verify(tmp_path: Path) -> None:
    folder = KeyFolder(tmp_path / "keys")
    folder.ensure()
    [first] = folder.public()
    folder.ensure()
    assert [key.key_id for key in folder.public()] == [first.key_id]
    private = tmp_path / "keys" / "signing.pem"
    assert stat.S_IMODE(private.stat().st_mode) == 0o600
    assert stat.S_IMODE(private.parent.stat().st_mode) == 0o700
    old = signed(PAYLOAD, folder.key()).encode()
    second = folder.rotate()
    assert [(key.key_id, key.current) for key in folder.public()] == [(second, True), (first.key_id, False)]
    public = {key.key_id: public_key_of(key.pem.encode(), "here") for key in folder.public()}
    assert verified(old, public, NOW_MS) == verified(signed(PAYLOAD, folder.key()).encode(), public, NOW_MS)
    private.chmod(0o644)
    with pytest.raises(DataFolderError, match="may be read by others: expected mode 0600"):
        folder.key()
    private.chmod(0o600)
    private.write_text("nothing")
    with pytest.raises(DataFolderError, match="no private key"):
        KeyFolder(tmp_path / "keys").key()
    with pytest.raises(SignatureError, match="mine: no public key"):
        public_key_of(b"nothing", "mine")


async def test_a_server_signs_what_its_configuration_falls_back_to(tmp_path: Path) -> None:
    ends_ms = START_MS + DAY_MS
    text = CONFIG.replace(b"    value: 30\n", b"    value: 30\n    ends_ms: %d\n" % ends_ms)
    fallback = b"fallback: {branch: [helpline, card], web: [card]}\ndefaults: {valid_for: 2d}"
    text = text.replace(b"fallback: [card]", fallback)
    engine = SmallEngine(text)
    asked = defaults_pb2.DefaultsRequest(channel="branch", placement="desk", language="cs")
    with pytest.raises(Unavailable, match="no data folder with a key"):
        await engine.service.defaults.defaults(asked)
    folder = engine.service.defaults.key_folder = KeyFolder(tmp_path / "keys")
    with pytest.raises(Unavailable, match="cannot be signed"):
        await engine.service.defaults.defaults(asked)
    folder.ensure()
    answer = await engine.service.defaults.defaults(asked)
    published = await engine.service.defaults.keys(defaults_pb2.DefaultKeysRequest())
    public = {key.key_id: public_key_of(key.pem.encode(), "api") for key in published.keys}
    payload = verified(answer.document.encode(), public, START_MS)
    assert next((o["offer_id"], o["treatment"], o["until_ms"]) for o in payload["offers"]) == (
        "helpline", "May we help?", ends_ms
    )  # fmt: skip
    assert [(o.offer_id, o.treatment) for o in answer.offers][1] == ("card", "Karta")
    assert (payload["channel"], payload["placement"], payload["language"]) == ("branch", "desk", "cs")
    assert (answer.valid_until_ms, payload["config_version"]) == (START_MS + 2 * DAY_MS, engine.catalogue.version)
    engine.now_ms += 1_000
    again = await engine.service.defaults.defaults(asked)
    assert again.version == answer.version == version_of(payload) and again.document != answer.document
    engine.now_ms = ends_ms
    later = await engine.service.defaults.defaults(asked)
    assert [o.offer_id for o in later.offers] == ["card"] and later.version != answer.version
    for channel, placement, language in (("moon", "", ""), ("web", "desk", ""), ("web", "", "x" * 17)):
        wrong = defaults_pb2.DefaultsRequest(channel=channel, placement=placement, language=language)
        with pytest.raises(InvalidArgument):
            await engine.service.defaults.defaults(wrong)
