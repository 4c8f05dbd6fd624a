"""From what the engine kept to the messages that callers get; a fresh decision's answer is in engine.answerwire."""

from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np
import orjson
from numpy.typing import NDArray

from engine.answers_quotes import fill_quote, resumed_offer, said
from engine.answerwire import asked, reason
from engine.catalogue import Catalogue
from engine.config_schema import key_of
from engine.drafts import Ask
from engine.explain.languages import words_for
from engine.holds import NOT_ELIGIBLE
from engine.instances import began_in, quotes_in
from engine.ledger import Ledger
from engine.record import DecisionRecord, decision_id
from engine.serving import COMMIT_FAILED, DEADLINE_NEAR, STATE_STORE_UNAVAILABLE, Fallback
from engine.tokens import Values
from engine.whynot import WhyNot
from features import Offset, RecordHeader
from models.offercalibration import calibrated
from opportune.v1 import common_pb2, customers_pb2, decisions_pb2

_NO_CURVE: Final = np.zeros(0)
_WHY_FALLBACK: Final = {
    STATE_STORE_UNAVAILABLE: "state_away",
    COMMIT_FAILED: "commit_failed",
    DEADLINE_NEAR: "deadline_near",
}


def plain_value(value: float | str | bool) -> common_pb2.Value:
    """A plain value as a message."""
    if isinstance(value, bool):
        return common_pb2.Value(flag=value)
    if isinstance(value, str):
        return common_pb2.Value(text=value)
    return common_pb2.Value(number=value)


def repeated(
    catalogue: Catalogue,
    record: DecisionRecord,
    partition: int,
    position: Offset,
    ask: Ask,
    curve: NDArray[np.float64],
    reasons: Mapping[int, Sequence[decisions_pb2.Reason]],
) -> decisions_pb2.DecideResponse:
    """The answer to a request that was answered before, from its record; `curve` is that of its policy, `reasons` are
    by offer.
    """
    same = record.config_version == catalogue.version
    # The channel of a record is an index of its own configuration: in another one it may be another channel.
    channel = record.channel if same else ask.channel
    response = decisions_pb2.DecideResponse(
        decision_id=decision_id(partition, position),
        customer_id=record.customer,
        policy_version=record.policy_version,
        config_version=record.config_version,
        time_ms=record.time_ms,
        degraded=record.degraded,  # type: ignore[arg-type]
        repeated=True,
    )
    placement = record.placement if same else ask.placement
    quotes = quotes_in(record)
    for rank, choice in enumerate(record.slate, 1):
        at = catalogue.index_of_key.get(choice.key)
        if at is None:
            continue
        offer = catalogue.offers[at]
        quote = quotes.get(offer.id)
        added = response.offers.add(
            offer_id=offer.id,
            rank=rank,
            kind=catalogue.kinds[at],
            category=offer.category,
            treatment=said(
                catalogue, (channel, placement, ask.language), at, quote, record.context, choice.window_end_ms
            ),
            propensity=choice.propensity,
            score=choice.score,
            acceptance_probability=calibrated(curve if catalogue.plain[at] else _NO_CURVE, choice.mean, choice.key),
            value=offer.value,
            contact_cost=offer.contact_cost,
            expires_ms=choice.window_end_ms,
            asks=asked(offer),
            bundles=offer.bundle.offers if offer.bundle is not None else (),
            reasons=reasons.get(at, ()),
        )
        if same and (kept_ms := int(catalogue.budgets.reserved_ms[at])):
            added.reserved_until_ms = record.time_ms + kept_ms
        if quote is not None:
            fill_quote(added, quote)
    if began := began_in(record):
        if (at := catalogue.index_of_key.get(key_of(began[0]))) is not None:
            place = channel, placement, ask.language
            response.offers.append(resumed_offer(catalogue, place, at, began[1], record.context))
    elif not record.slate:
        # Silence is drawn for sure when nothing was eligible: the propensity alone does not tell the two apart.
        code = "silence" if record.nothing_propensity else NOT_ELIGIBLE
        if same:
            code = WhyNot(catalogue, record).nothing()
        response.nothing_reason.CopyFrom(reason(code, ask.language))
    if same:
        response.arms.extend(catalogue.experiments.of(record.customer, record.time_ms).names)
    if record.known:
        fill_freshness(response.state, record.watermark, record.latest_event_ms, record.time_ms)
    return response


def fallen_back(catalogue: Catalogue, answer: Fallback) -> decisions_pb2.DecideResponse:
    """The answer where no decision could be made durable."""
    ask = answer.ask
    response = decisions_pb2.DecideResponse(
        customer_id=ask.customer,
        config_version=catalogue.version,
        time_ms=ask.time_ms,
        degraded=answer.degraded,  # type: ignore[arg-type]
        arms=catalogue.experiments.of(ask.customer, ask.time_ms).names,
    )
    words = words_for(ask.language)[1].in_answers
    why = words[_WHY_FALLBACK[answer.degraded]]
    from_list = decisions_pb2.Reason(code="fallback", text=words["fallback"].format(why=why))
    values = Values({}, {}, orjson.loads(ask.context or b"{}"), {})
    texts = [catalogue.treatments.said(ask.channel, ask.placement, ask.language, at, values) for at in answer.offers]
    # Of what can be said only knowing the customer, nothing is.
    sayable = [(at, text) for at, text in zip(answer.offers, texts, strict=True) if text is not None]
    for rank, (at, text) in enumerate(sayable, 1):
        offer = catalogue.offers[at]
        response.offers.add(
            offer_id=offer.id,
            rank=rank,
            kind=catalogue.kinds[at],
            category=offer.category,
            treatment=text,
            value=offer.value,
            contact_cost=offer.contact_cost,
            reasons=[from_list],
        )
    if not sayable:
        kept = catalogue.experiments.kept_back(ask.customer, ask.time_ms, ask.channel)
        if kept is not None and kept[list(catalogue.defaults.at(ask.channel, ask.time_ms))].any():
            response.nothing_reason.CopyFrom(reason("control_group", ask.language))
        else:
            nothing = words["no_fallback"].format(why=why)
            response.nothing_reason.CopyFrom(decisions_pb2.Reason(code="fallback", text=nothing))
    return response


def customer(
    catalogue: Catalogue,
    customer_id: str,
    state: tuple[bytes | None, bytes | None],
    header: RecordHeader | None,
    ledger: Ledger,
    partition: int,
    now_ms: int,
    rolled: Sequence[bytes | None],
) -> customers_pb2.Customer:
    """What the engine knows of one customer; `rolled` has the records of what the customer belongs to, by kind.

    Raises features.RecordError if one of those cannot be read.
    """
    record, ledger_bytes = state
    response = customers_pb2.Customer(
        customer_id=customer_id,
        bytes=len(record or b"") + len(ledger_bytes or b""),
        state=decisions_pb2.StateFreshness(known=header is not None),
    )
    if header is not None:
        fill_freshness(response.state, header.watermark, max(header.latest_event_ms, 0), now_ms)
        response.events, response.duplicates, response.late = header.events, header.duplicates, header.late
    records = dict(zip(catalogue.layouts, (record, *rolled), strict=True))
    values: dict[str, float | str | bool | None] = {}
    known: dict[str, float | str | bool | None] = {}
    newest: dict[str, int] = {}
    for kind, found in records.items():
        layout = catalogue.layouts[kind]
        values |= layout.values(found, now_ms)
        # One of an older configuration as one of this, which is all that the layouts without defaults know.
        known |= catalogue.bare_layouts[kind].values(layout.merge([found]) if found is not None else None, now_ms)
        newest[kind] = max(layout.watermark(found)[1], 0) if found is not None else 0
    for feature in catalogue.config.all_features:
        value, latest_ms = values[feature.name], newest[feature.entity]
        added = response.features.add(
            name=feature.name,
            unit=feature.unit,
            defaulted=value is not None and known[feature.name] is None,
            latest_event_ms=latest_ms,
            age_ms=_age_ms(latest_ms, now_ms),
        )
        if value is not None:
            added.value.CopyFrom(plain_value(value))
    for entry in reversed(ledger.decisions):
        for offer in entry.offers:
            response.offers.add(
                decision_id=decision_id(partition, entry.position),
                offer_id=catalogue.offer_name(offer.key),
                stage=int(offer.stage),
                served_ms=entry.time_ms,
                expires_ms=offer.window_end_ms,
            )
    return response


def fill_freshness(state: Any, watermark: Offset, latest_event_ms: int, now_ms: int) -> None:
    """Say how fresh a state was."""
    state.known = True
    state.watermark = str(watermark)
    state.latest_event_ms = latest_event_ms
    state.age_ms = _age_ms(latest_event_ms, now_ms)


def _age_ms(latest_event_ms: int, now_ms: int) -> int:
    return max(0, now_ms - latest_event_ms) if latest_event_ms else 0
