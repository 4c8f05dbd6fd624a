"""The decision, pure: states and requests in, choices and bytes to commit out. A batch at a time.

    state → value matrix → quantised vector → rules as bit masks → posterior scores → arbitration → exploration → slate

Arbitration is P × C × V × L − contact cost: propensity, context weight, value, lever (engine.arbitration). Saying
nothing takes part with the score 0, a question with what its answer would change (engine.questions). The clock is in
the requests, the dice are seeded by person, state and ledger epoch: whoever asks again before anything has changed gets
the same answer, while across people the draws are independent, as exploration needs.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from engine import basis, ledger, record
from engine.arbitration import of_picks
from engine.basis import GATE_OPEN, estimates_of
from engine.budgets import Left
from engine.catalogue import Catalogue
from engine.choosing import drawn, weighed
from engine.experiment_arms import arms_of, batch_of
from engine.found import NOTHING_FOUND, Begun, Found, Resume
from engine.holds import CONTROL_GROUP, HELD_BACK, NOT_ELIGIBLE, Hold, Situation
from engine.ladder import Rung, held_of
from engine.ledger import Glance
from engine.parameters import Quote, pack
from engine.placements import PLACEMENT
from engine.policyfacts import PolicyFacts
from engine.valuecode import coded
from features import HEADER_STATE_BYTES, Layout, Offset, RecordError
from models import Policy, counting, seed_of

NOT_DEGRADED: Final = 0
STATE_UNREADABLE: Final = 3
POLICY_UNAVAILABLE: Final = 4
"""Numbers of opportune.v1.DegradedReason."""


class Ask(NamedTuple):
    """One checked request."""

    customer: str
    channel: int
    placement: int
    facts: tuple[tuple[int, float], ...]
    """(column of the value matrix, value) of the facts given."""
    context: bytes
    """The facts as JSON, as the caller gave them."""
    limit: int
    time_ms: int
    language: str
    request_id: str
    request_hash: int
    resume: Resume | None = None
    """The open offer to go on with."""


class Pick(NamedTuple):
    """One offer of the slate. A tuple: a frozen dataclass takes three times as long to make."""

    offer: int
    propensity: float
    score: float
    shown: float
    """The estimated acceptance as a probability, calibrated."""
    window_end_ms: int
    explored: bool
    cold: bool
    rung: Rung
    """What the estimate rests on, see engine.ladder."""
    evidence: float
    """The number behind it: points or lessons."""


class Draft(NamedTuple):
    """A decision that is made and not yet durable."""

    ask: Ask
    picks: Sequence[Pick]
    nothing_propensity: float
    any_eligible: bool
    known: bool
    watermark: Offset
    latest_event_ms: int
    degraded: int
    seen: Glance
    policy_version: int
    ledger_expected: bytes
    ledger_head: bytes
    ledger_tail: bytes
    record: bytes
    arms: bytes = b""
    """Where the customer stands in experiments, as fields of a DecideResponse."""
    nothing: str = ""
    """Why there is nothing in the answer: the code of the reason."""
    quotes: Sequence[Quote | None] = ()
    """What goes with each pick; empty if nothing goes with any."""
    begun: Mapping[tuple[Offset, int], Begun] = NOTHING_FOUND.begun
    """What is known of the open offers that were seen."""
    resumed: bool = False
    """Whether an open offer was resumed: nothing was drawn."""


@dataclass(frozen=True, slots=True)
class Repeat:
    """A request whose id has been answered before: the decision is at `position`."""

    ask: Ask
    position: Offset
    seen: Glance


State = tuple[bytes | None, bytes | None]
Linked = Sequence[tuple[int, bytes]]
"""(partition, ledger) of the names linked to a customer."""


def decide(
    catalogue: Catalogue,
    policy: Policy,
    asks: Sequence[Ask],
    states: Sequence[State],
    *,
    rolled: Sequence[Sequence[bytes | None]] = (),
    policy_known: bool = True,
    facts: PolicyFacts | None = None,
    prices: NDArray[np.float64] | None = None,
    linked: Sequence[Linked] = (),
    left: Sequence[Left] | None = None,
    found: Sequence[Found] = (),
) -> list[Draft | Repeat]:
    """Decide for a batch. `states` are (features, ledger) bytes of each request's customer, None where unknown.

    `rolled` has the records of each request's entities, by kind, if the catalogue has features of entities. `facts` are
    those of the policy; None: nothing is told of it. `prices` (n,) are the shadow prices of the offers, if any; `left`
    says which budgets run short for each request, None: none of them. `linked` has the ledgers of the names linked to
    each customer, if contacts under them count. `found` is what was read of each customer's open offers; empty:
    nothing.

    A customer may be in a batch once only: two decisions from one ledger could not both be committed.
    """
    glances: list[Glance] = []
    results: list[Draft | Repeat | None] = []
    damaged: list[bool] = []
    for ask, (_, ledger_bytes) in zip(asks, states, strict=True):
        try:
            seen, ok = ledger.glance(ledger_bytes, ask.request_hash, ask.time_ms), True
        except ledger.LedgerError:
            # A damaged ledger is replaced: its revision is unknown, but compare-and-set compares its bytes as they are.
            seen, ok = Glance(0, 0, None, ()), False
        if linked and linked[len(glances)]:
            seen = seen._replace(linked=_begun_elsewhere(linked[len(glances)], ask.time_ms))
        glances.append(seen)
        damaged.append(not ok)
        results.append(None if seen.repeated is None else Repeat(ask, seen.repeated, seen))
    for at, one in enumerate(found):
        if one.resumed is not None and results[at] is None:
            entities = rolled[at] if rolled else ()
            results[at] = _go_on(catalogue, asks[at], states[at], glances[at], one, entities, damaged=damaged[at])
    todo = [at for at, result in enumerate(results) if result is None]
    if todo:
        drafts = _decide_new(
            catalogue,
            policy,
            [asks[at] for at in todo],
            [states[at] for at in todo],
            [glances[at] for at in todo],
            [damaged[at] for at in todo],
            [rolled[at] for at in todo] if rolled else (),
            policy_known,
            facts or PolicyFacts.none(len(catalogue.ladder.offers)),
            prices,
            [linked[at] for at in todo] if linked else (),
            None if left is None else [left[at] for at in todo],
            [found[at] for at in todo] if found else (),
        )
        for at, draft in zip(todo, drafts, strict=True):
            results[at] = draft
    return [result for result in results if result is not None]


def _decide_new(
    catalogue: Catalogue,
    policy: Policy,
    asks: Sequence[Ask],
    states: Sequence[State],
    glances: Sequence[Glance],
    damaged: Sequence[bool],
    rolled: Sequence[Sequence[bytes | None]],
    policy_known: bool,
    facts: PolicyFacts,
    prices: NDArray[np.float64] | None,
    linked: Sequence[Linked],
    left: Sequence[Left] | None,
    found: Sequence[Found],
) -> list[Draft]:
    count = len(asks)
    offers = len(catalogue.offers)
    config = catalogue.config
    times = np.fromiter((ask.time_ms for ask in asks), np.int64, count)
    channels = np.fromiter((ask.channel for ask in asks), np.int64, count)
    limits = np.fromiter((ask.limit for ask in asks), np.int64, count)
    records = [features for features, _ in states]
    values, unreadable = _values(catalogue, asks, records, rolled, times)
    x = catalogue.transform.apply(values)
    if catalogue.rule_values.names:
        where = channels.tolist(), [ask.placement for ask in asks], times.tolist()
        values = catalogue.rule_values.extended(values, *where, glances, [kept for _, kept in states])
    verdicts = catalogue.rule_batch.evaluate(values)
    mean, sd = policy.score(x)
    ladder = catalogue.ladder
    awarded = ladder.climb(x, mean, sd, held_of(verdicts), facts) if ladder.offers else None
    lessons = ladder.record(policy)
    contacts, look, surcharges = catalogue.contacts, None, None
    if contacts is not None:
        ledgers = [None if bad else data for (_, data), bad in zip(states, damaged, strict=True)]
        others = [[data for _, data in ledgers_of] for ledgers_of in linked]
        look = contacts.look(glances, ledgers, channels, times, limits, others)
        surcharges = look.surcharges
    customers = [ask.customer for ask in asks]
    standings = arms_of(catalogue.experiments, customers, times.tolist())
    arms = batch_of(standings)
    if arms is not None:
        arms.estimates(catalogue.neutral, policy, facts.average, mean, sd)
    catalogue.silent.surely(mean, sd)
    explorer = catalogue.explorer
    sound = [not bad and not lost for bad, lost in zip(unreadable, damaged, strict=True)]
    situation = Situation(
        customers,
        glances,
        verdicts,
        channels,
        [ask.placement for ask in asks],
        times,
        contacts=look,
        facts=[ask.facts for ask in asks],
        sound=sound,
        left=left,
    )
    held = catalogue.holds.of(situation)
    weights = weighed(
        catalogue, mean, sd, verdicts, channels, times, held=held, surcharges=surcharges, prices=prices, arms=arms
    )
    score, spread, may, any_eligible = weights
    answers: list[tuple[tuple[int, float], ...]] = []
    if catalogue.questions.asked:
        answers = imagine(
            catalogue, policy, situation, held, values, score, may, facts=facts, prices=prices, surcharges=surcharges
        )
        catalogue.questions.add(score, answers)
    seeds = [
        seed_of(ask.customer.encode(), data[:HEADER_STATE_BYTES] if data is not None else b"", seen.epoch)
        for ask, data, seen in zip(asks, records, glances, strict=True)
    ]
    gates = explorer.gates(channels, verdicts, seeds, glances, times, sound)
    if arms is not None:
        gates = arms.gates(gates, explorer.closed(verdicts, sound))
    slates, as_drawn = drawn(
        catalogue, weights, channels, limits, seeds, held=held, gates=gates, arms=arms
    )
    counting_columns = counting(
        score,
        spread,
        may,
        limits,
        candidates_max=config.exploration.candidates,
        method=explorer.method,
        caps=catalogue.caps,
        picks=as_drawn,
    )
    seen_values = coded(values)
    estimates = estimates_of(*counting_columns, mean, sd)
    priced = () if prices is None else tuple((at, float(prices[at])) for at in np.flatnonzero(prices).tolist())
    trials = explorer.trials(slates.explored, seeds, glances, times)
    # Plain numbers from here on: taking them out of an array one by one costs more than all of the above.
    columns = zip(
        slates.picks.tolist(),
        slates.propensities.tolist(),
        of_picks(slates.picks, score, mean, sd, facts.curve, catalogue.plain),
        slates.explored.tolist(),
        strict=True,
    )
    steps, dimension = x.tobytes(), x.shape[1]
    version = bytes.fromhex(catalogue.version)
    keys, windows_ms, cold = catalogue.offer_keys, catalogue.windows_ms, lessons.cold
    silent = catalogue.silent.offers
    quoting = catalogue.quoting
    drafts = []
    for at, (ask, row) in enumerate(zip(asks, columns, strict=True)):
        picks: list[Pick] = []
        slate: list[tuple[int, float, float, float, float, int]] = []
        opening: list[tuple[int, int]] = []
        nothing = 0.0
        points = awarded if standings is None or standings[at].model else None
        for offer, propensity, (worth, likely, unsure, shown), explored in zip(*row, strict=True):
            if offer < 0 or offer == offers:
                # Silence was drawn, or nothing was left to draw (propensity 0).
                nothing = propensity
                break
            key, end_ms = keys[offer], ask.time_ms + windows_ms[offer]
            rung, evidence = ladder.rung(offer, at, points, lessons)
            if offer in silent:
                # Nothing is offered, so nothing is waited for.
                picks.append(Pick(offer, propensity, worth, shown, 0, explored, False, rung, evidence))
                end_ms = 0
            else:
                picks.append(Pick(offer, propensity, worth, shown, end_ms, explored, cold[offer], rung, evidence))
                opening.append((key, end_ms))
            slate.append((key, propensity, worth, likely, unsure, end_ms))
        quotes: Sequence[Quote | None] = ()
        parameters = b""
        seen_of = found[at] if found else NOTHING_FOUND
        if quoting is not None and picks:
            picked = [pick.offer for pick in picks]
            if any(quoting.quoted[offer] for offer in picked):
                variables = catalogue.variables_of(values[at].tolist())
                quotes = quoting.quotes(picked, variables, ask.time_ms, seen_of.held)
                parameters = quoting.packed(picked, quotes)
        degraded = STATE_UNREADABLE if unreadable[at] or damaged[at] else NOT_DEGRADED
        if not degraded and not policy_known:
            degraded = POLICY_UNAVAILABLE
        data, ledger_bytes = records[at], states[at][1]
        watermark, latest_ms = catalogue.layout.watermark(data) if data is not None else (Offset.ZERO, 0)
        counted = None
        if contacts is not None and look is not None:
            made = [pick.offer for pick in picks if pick.window_end_ms]
            counted = contacts.grown(look, at, ask.channel, made)
        head, tail = ledger.opened(
            None if damaged[at] else ledger_bytes,
            glances[at],
            ask.request_hash,
            ask.time_ms,
            opening,
            trials[at],
            counted,
        )
        latest_ms = max(latest_ms, 0)
        packed = record.pack_decision(
            time_ms=ask.time_ms,
            seed=seeds[at],
            config_version=version,
            transform_version=catalogue.transform.version,
            policy_version=policy.version,
            watermark=watermark,
            latest_event_ms=latest_ms,
            channel=ask.channel,
            placement=ask.placement,
            degraded=degraded,
            known=data is not None,
            limit=ask.limit,
            customer=ask.customer.encode(),
            request_id=ask.request_id.encode(),
            context=ask.context,
            x=steps[at * dimension : (at + 1) * dimension],
            rules_held=verdicts[at].held,
            rules_failed=verdicts[at].failed,
            nothing_propensity=nothing,
            slate=slate,
            basis=basis.packed(
                *estimates[at],
                held[at] if held is not None else (),
                priced,
                0.0 if surcharges is None else float(surcharges[at]),
                gate=GATE_OPEN if gates is None else float(gates[at]),
                parameters=parameters,
                seen=seen_values[at],
                values=answers[at] if answers else (),
            ),
        )
        drafts.append(
            Draft(
                ask=ask,
                picks=picks,
                nothing_propensity=nothing,
                any_eligible=bool(any_eligible[at]),
                known=data is not None,
                watermark=watermark,
                latest_event_ms=latest_ms,
                degraded=degraded,
                seen=glances[at],
                policy_version=policy.version,
                ledger_expected=(ledger_bytes or b"")[: ledger.CAS_BYTES],
                ledger_head=head,
                ledger_tail=tail,
                record=packed,
                arms=standings[at].wire if standings is not None else b"",
                nothing="" if picks else _nothing(catalogue, bool(any_eligible[at]), may[at], held[at] if held else ()),
                quotes=quotes,
                begun=seen_of.begun,
            )
        )
    return drafts


def _nothing(catalogue: Catalogue, any_eligible: bool, may: NDArray[np.bool_], held: Sequence[Hold]) -> str:
    """Why nothing is in an answer; `any_eligible` says whether the rules of any offer held, `may` what was left."""
    if may[:-1].any():
        return "silence"
    if not any_eligible:
        return NOT_ELIGIBLE
    layers = {catalogue.holds.layer(hold) for hold in held}
    if layers <= {PLACEMENT}:
        return NOT_ELIGIBLE
    return CONTROL_GROUP if CONTROL_GROUP in layers else HELD_BACK


def _begun_elsewhere(
    linked: Linked, now_ms: int
) -> tuple[tuple[int, Sequence[tuple[Offset, int, int, int, int]]], ...]:
    """(partition, open offers) of names linked to a customer."""
    found = []
    for partition, data in linked:
        try:
            found.append((partition, ledger.glance(data, 0, now_ms).open_offers))
        except ledger.LedgerError:
            continue
    return tuple(found)
def imagine(
    catalogue: Catalogue,
    policy: Policy,
    situation: Situation,
    held: Sequence[tuple[Hold, ...]] | None,
    values: NDArray[np.float64],
    score: NDArray[np.float64],
    may: NDArray[np.bool_],
    *,
    facts: PolicyFacts,
    prices: NDArray[np.float64] | None = None,
    surcharges: NDArray[np.float64] | None = None,
) -> list[tuple[tuple[int, float], ...]]:
    """What knowing the answers would add to the scores of questions (engine.questions): the decision, thought through.

    `values` is the value matrix of the batch; the rest is as it was arbitrated: `score` and `may` over the offers and
    silence, after what was `held`. Limits stay as they are, but for the guard: an answer may tell whom to leave alone.
    """

    def think(
        rows: NDArray[np.int64], imagined: NDArray[np.float64]
    ) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
        x = catalogue.transform.apply(np.ascontiguousarray(imagined[:, : len(catalogue.columns)]))
        verdicts = catalogue.rule_batch.evaluate(imagined)
        mean, sd = policy.score(x)
        if catalogue.ladder.offers:
            catalogue.ladder.climb(x, mean, sd, held_of(verdicts), facts)
        catalogue.silent.surely(mean, sd)
        scores, _, possible, _ = catalogue.arbitration.score(
            mean,
            sd,
            verdicts,
            situation.channels[rows],
            situation.times_ms[rows],
            surcharges=None if surcharges is None else surcharges[rows],
            prices=prices,
        )
        guard, holds = catalogue.guard, catalogue.holds
        anew = [
            guard.anew(holds, held[row] if held is not None else (), verdict, situation.sound[row])
            for row, verdict in zip(rows.tolist(), verdicts, strict=True)
        ]
        holds.keep_back(anew, possible)
        return scores, possible

    def weights(row: int) -> NDArray[np.float64]:
        return catalogue.weighing.row(situation.verdicts[row], int(situation.channels[row]))[1]

    return catalogue.questions.worth(values, score, may, weights, think)
def _go_on(
    catalogue: Catalogue,
    ask: Ask,
    state: State,
    seen: Glance,
    found: Found,
    entities: Sequence[bytes | None],
    *,
    damaged: bool,
) -> Draft:
    """The decision to go on with an open offer: its parameters are held or worked out anew, nothing is drawn.

    The record has no slate and the ledger no offer, so that nothing is counted or learnt twice; the quote names the
    decision that began it.
    """
    resumed = found.resumed
    assert resumed is not None
    data, ledger_bytes = state
    records = [data]
    values, [unreadable] = _values(catalogue, [ask], records, [entities] if entities else (), np.array([ask.time_ms]))
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
    watermark, latest_ms = catalogue.layout.watermark(data) if data is not None else (Offset.ZERO, 0)
    head, tail = ledger.opened(
        None if damaged else ledger_bytes, seen, ask.request_hash, ask.time_ms, (), seen.explored
    )
    state_bytes = data[:HEADER_STATE_BYTES] if data is not None else b""
    degraded = STATE_UNREADABLE if unreadable or damaged else NOT_DEGRADED
    packed = record.pack_decision(
        time_ms=ask.time_ms,
        seed=seed_of(ask.customer.encode(), state_bytes, seen.epoch),
        config_version=bytes.fromhex(catalogue.version),
        transform_version=0,
        policy_version=resumed.policy_version,
        watermark=watermark,
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
    pick = Pick(resumed.offer, 1.0, 0.0, 0.0, resumed.expires_ms, False, False, Rung.OWN, 0.0)
    return Draft(
        ask=ask,
        picks=[pick],
        nothing_propensity=0.0,
        any_eligible=True,
        known=data is not None,
        watermark=watermark,
        latest_event_ms=max(latest_ms, 0),
        degraded=degraded,
        seen=seen,
        policy_version=resumed.policy_version,
        ledger_expected=(ledger_bytes or b"")[: ledger.CAS_BYTES],
        ledger_head=head,
        ledger_tail=tail,
        record=packed,
        quotes=[quote],
        begun=found.begun,
        resumed=True,
    )


def _values(
    catalogue: Catalogue,
    asks: Sequence[Ask],
    records: list[bytes | None],
    rolled: Sequence[Sequence[bytes | None]],
    times: NDArray[np.int64],
) -> tuple[NDArray[np.float64], list[bool]]:
    """The value matrix, and which records could not be read: those become None, decided from defaults."""
    values = np.empty((len(asks), len(catalogue.columns)))
    unreadable = [False] * len(asks)
    start = len(catalogue.layout.names)
    values[:, :start] = _read(catalogue.layout, records, times, unreadable)
    for kind, rollup in enumerate(catalogue.rollups):
        end = start + len(rollup.layout.names)
        of_kind: list[bytes | None] = [entities[kind] for entities in rolled] if rolled else [None] * len(asks)
        values[:, start:end] = _read(rollup.layout, of_kind, times, unreadable)
        start = end
    values[:, start:] = catalogue.fact_defaults
    for at, ask in enumerate(asks):
        for column, value in ask.facts:
            values[at, column] = value
    return values, unreadable


def _read(
    layout: Layout, records: list[bytes | None], times: NDArray[np.int64], unreadable: list[bool]
) -> NDArray[np.float64]:
    """Values of the features of a layout; records that cannot be read become None and are marked."""
    try:
        return layout.read(records, times)
    except RecordError:
        for at, data in enumerate(records):
            try:
                layout.read([data], times[at : at + 1])
            except RecordError:
                records[at], unreadable[at] = None, True
        return layout.read(records, times)
