"""The decision to go on with an open offer: its parameters are held or worked out anew, nothing is drawn."""

from collections.abc import Sequence

import numpy as np

from engine import basis, record
from engine.catalogue import Catalogue
from engine.drafts import NOT_DEGRADED, STATE_UNREADABLE, Ask, Batch, Draft, Linked, State
from engine.found import Found
from engine.ladder import Rung
from engine.ledger import CAS_BYTES
from engine.ledgers import Ledgers, hashes_of
from engine.parameters import Quote, pack
from engine.places import Places
from engine.value_matrix import value_matrix
from features import HEADER_STATE_BYTES, Offset
from models import seed_of


def go_on(
    catalogue: Catalogue,
    ask: Ask,
    state: State,
    linked: Linked,
    found: Found,
    entities: Sequence[bytes | None],
) -> Draft:
    """The decision.

    The record has no slate and the ledger no offer, so that nothing is counted or learnt twice; the quote names the
    decision that began it.
    """
    resumed = found.resumed
    assert resumed is not None
    data, kept = state
    records = [data]
    times = np.array([ask.time_ms])
    ledgers = Ledgers([kept], hashes_of([ask]), times, [linked])
    seen, [damaged] = ledgers[0], ledgers.damaged
    values, [unreadable] = value_matrix(catalogue, [ask], records, [entities] if entities else (), times)
    [data] = records
    quoting = catalogue.quoting
    quote = resumed.quote
    if quoting is not None and quoting.quoted[resumed.offer]:
        quote = quoting.quote(resumed.offer, catalogue.variables_of(values[0].tolist()), ask.time_ms, quote)
    elif not quote.held_at(ask.time_ms):
        quote = Quote()  # it has no parameters any more
    # A promise ends with the offer at the latest.
    until_ms = min(quote.held_until_ms, resumed.expires_ms)
    quote = quote._replace(held_until_ms=until_ms, began=resumed.began, expires_ms=resumed.expires_ms)
    state_bytes = data[:HEADER_STATE_BYTES] if data is not None else b""
    watermarks = catalogue.layout.watermarks([data])
    ms, seq, latest_ms = watermarks[0].tolist()
    degraded = STATE_UNREADABLE if unreadable or damaged else NOT_DEGRADED
    packed = record.pack_decision(
        time_ms=ask.time_ms,
        seed=seed_of(ask.customer.encode(), state_bytes, seen.epoch),
        config_version=bytes.fromhex(catalogue.version),
        transform_version=0,
        policy_version=resumed.policy_version,
        watermark=Offset(ms, seq),
        latest_event_ms=max(latest_ms, 0),
        channel=ask.channel,
        placement=ask.placement,
        degraded=degraded,
        known=data is not None,
        limit=0,
        customer=ask.customer.encode(),
        request_id=ask.request_id.encode(),
        context=ask.context,
        x=b"",
        rules_held=b"",
        rules_failed=b"",
        nothing_propensity=0.0,
        slate=(),
        basis=basis.packed(0, b"", parameters=pack({catalogue.offer_ids[resumed.offer]: quote})),
    )
    none = np.zeros((1, 0), np.int16)
    [(head, tail)] = ledgers.opened(Places.none(1), none, ledgers.hashes, [seen.explored])
    batch = Batch(
        times_ms=times,
        policy_version=resumed.policy_version,
        states=np.maximum(watermarks, 0),
        known=np.array([data is not None]),
        degraded=np.array([degraded]),
        ledgers=ledgers,
        picks=np.array([[resumed.offer]], np.int16),
        propensities=np.ones((1, 1)),
        figures=np.zeros((1, 1, 4)),
        explored=np.zeros((1, 1), np.bool_),
        places=Places(
            counts=np.ones(1, np.int64),
            nothing=np.zeros(1),
            window_ends_ms=np.array([[resumed.expires_ms]]),
            cold=np.zeros((1, 1), np.bool_),
            rungs=np.array([[int(Rung.OWN)]]),
            evidence=np.zeros((1, 1)),
        ),
    )
    return Draft(ask, batch, 0, packed, (kept or b"")[:CAS_BYTES], head, tail, "", b"", [quote], found.begun, True)
