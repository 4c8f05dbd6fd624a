"""The decision, pure: states and requests in, choices and bytes to commit out. A batch at a time.

    state → value matrix → quantised vector → rules as bit masks → posterior scores → arbitration → exploration → slate

Arbitration is P × C × V × L − contact cost: propensity, context weight, value, lever (engine.arbitration). Saying
nothing takes part with the score 0, a question with what its answer would change (engine.questions). The clock is in
the requests, the dice are seeded by person, state and ledger epoch: whoever asks again before anything has changed gets
the same answer, while across people the draws are independent, as exploration needs.

What is done for each row in Python costs a decision a microsecond a line, so numbers stay in columns throughout, and
compiled code packs what is committed (engine.packing).
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from engine import basis
from engine.arbitration import of_picks
from engine.basis import GATE_OPEN
from engine.budgets import Left
from engine.catalogue import Catalogue
from engine.choosing import drawn, weighed
from engine.drafts import (
    NOT_DEGRADED,
    POLICY_UNAVAILABLE,
    STATE_UNREADABLE,
    Ask,
    Batch,
    Draft,
    Linked,
    Repeat,
    State,
)
from engine.experiment_arms import arms_of, batch_of
from engine.found import NOTHING_FOUND, Found
from engine.holds import CONTROL_GROUP, HELD_BACK, NOT_ELIGIBLE, Hold, Situation
from engine.imagining import imagine
from engine.ladder import held_of
from engine.ledger import CAS_BYTES
from engine.ledgers import Ledgers, hashes_of
from engine.packing import Asked, Drawn, Extra, Rested, joined, pack_records
from engine.parameters import Quote
from engine.placements import PLACEMENT
from engine.places import placed
from engine.policyfacts import PolicyFacts
from engine.resuming import go_on
from engine.value_matrix import value_matrix
from engine.valuecode import packed_rows
from features import HEADER_STATE_BYTES
from models import Policy, counting, seed_of


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
    times_ms = np.fromiter((ask.time_ms for ask in asks), np.int64, len(asks))
    ledgers = Ledgers([kept for _, kept in states], hashes_of(asks), times_ms, linked)
    results: dict[int, Draft | Repeat] = {
        at: Repeat(asks[at], position, ledgers[at]) for at, position in ledgers.repeated.items()
    }
    for at, one in enumerate(found):
        if one.resumed is not None and at not in results:
            elsewhere = linked[at] if linked else ()
            results[at] = go_on(catalogue, asks[at], states[at], elsewhere, one, rolled[at] if rolled else ())
    facts = facts or PolicyFacts.none(len(catalogue.ladder.offers))
    todo = [at for at in range(len(asks)) if at not in results]
    if todo:
        drafts = _decide_new(
            catalogue,
            policy,
            [asks[at] for at in todo],
            [states[at] for at in todo],
            ledgers.only(todo) if results else ledgers,
            [rolled[at] for at in todo] if rolled else (),
            policy_known,
            facts,
            prices,
            [linked[at] for at in todo] if linked else (),
            None if left is None else [left[at] for at in todo],
            [found[at] for at in todo] if found else (),
        )
        if not results:
            return list(drafts)
        results.update(zip(todo, drafts, strict=True))
    return [results[at] for at in range(len(asks))]


def _decide_new(
    catalogue: Catalogue,
    policy: Policy,
    asks: Sequence[Ask],
    states: Sequence[State],
    ledgers: Ledgers,
    rolled: Sequence[Sequence[bytes | None]],
    policy_known: bool,
    facts: PolicyFacts,
    prices: NDArray[np.float64] | None,
    linked: Sequence[Linked],
    left: Sequence[Left] | None,
    found: Sequence[Found],
) -> list[Draft]:
    count = len(asks)
    times = ledgers.times_ms
    channels = np.fromiter((ask.channel for ask in asks), np.int64, count)
    limits = np.fromiter((ask.limit for ask in asks), np.int64, count)
    placements = [ask.placement for ask in asks]
    records = [features for features, _ in states]
    values, unreadable = value_matrix(catalogue, asks, records, rolled, times)
    x = catalogue.transform.apply(values)
    if catalogue.rule_values.names:
        where = channels.tolist(), placements, times.tolist()
        values = catalogue.rule_values.extended(values, *where, ledgers, [kept for _, kept in states])
    verdicts = catalogue.rule_batch.evaluate(values)
    mean, sd = policy.score(x)
    if catalogue.sharing.names:
        catalogue.sharing.serve([ask.customer for ask in asks], times.tolist(), x, mean, sd, facts.rivals)
    ladder = catalogue.ladder
    awarded = ladder.climb(x, mean, sd, held_of(verdicts), facts) if ladder.offers else None
    contacts, look, surcharges = catalogue.contacts, None, None
    if contacts is not None:
        others = [[data for _, data in ledgers_of] for ledgers_of in linked]
        look = contacts.look(ledgers, ledgers.found, channels, times, limits, others)
        surcharges = look.surcharges
    customers = [ask.customer for ask in asks]
    standings = arms_of(catalogue.experiments, customers, times.tolist())
    arms = batch_of(standings)
    if arms is not None:
        arms.estimates(catalogue.neutral, policy, facts.average, mean, sd)
    catalogue.silent.surely(mean, sd)
    explorer = catalogue.explorer
    explorer.widen(sd, facts.strength)
    lost = ledgers.damaged
    sound = [not bad and not gone for bad, gone in zip(unreadable, lost, strict=True)]
    situation = Situation(
        customers,
        ledgers,
        verdicts,
        channels,
        placements,
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
    named = [customer.encode() for customer in customers]
    seeds = [
        seed_of(name, data[:HEADER_STATE_BYTES] if data is not None else b"", epoch)
        for name, data, epoch in zip(named, records, ledgers.epochs, strict=True)
    ]
    seeds_64 = np.fromiter(seeds, np.uint64, count)
    gates = explorer.gates(channels, verdicts, seeds, ledgers, times, sound)
    if arms is not None:
        gates = arms.gates(gates, explorer.closed(verdicts, sound))
    slates, as_drawn = drawn(catalogue, weights, channels, limits, seeds_64, held=held, gates=gates, arms=arms)
    columns, column_counts = counting(
        score,
        spread,
        may,
        limits,
        **explorer.race,
        method=explorer.method,
        caps=catalogue.caps,
        picks=as_drawn,
    )
    figures = of_picks(
        slates.picks, score, mean, sd, facts.curve, catalogue.plain, catalogue.beside.of(facts.curve)
    )
    table = catalogue.offer_table
    personal = np.array([True] * count if standings is None else [one.model for one in standings])
    places = placed(
        slates.picks,
        slates.propensities,
        times,
        table.windows_ms,
        table.silent,
        ladder.rests(awarded, ladder.record(policy)),
        personal,
    )
    batch = Batch(
        times,
        policy.version,
        np.maximum(catalogue.layout.watermarks(records), 0),
        np.array([data is not None for data in records]),
        _degraded(sound, policy_known),
        ledgers,
        slates.picks,
        slates.propensities,
        figures,
        slates.explored,
        places,
    )
    quotes = _quotes(catalogue, batch, values, found)
    grown = None
    if contacts is not None and look is not None:
        served = zip(slates.picks.tolist(), places.window_ends_ms.tolist(), strict=True)
        grown = [
            contacts.grown(look, at, channel, [offer for offer, end_ms in zip(*row, strict=True) if end_ms])
            for at, (channel, row) in enumerate(zip(channels.tolist(), served, strict=True))
        ]
    trials = explorer.trials(slates.explored, seeds, ledgers, times)
    heads_and_tails = ledgers.opened(places, slates.picks, table.keys, trials, grown)
    packed = pack_records(
        Asked.of(
            times,
            channels,
            placements,
            limits,
            [
                part
                for name, ask in zip(named, asks, strict=True)
                for part in (name, ask.request_id.encode(), ask.context)
            ],
        ),
        seeds_64,
        batch.states,
        batch.known,
        batch.degraded,
        x,
        [verdict.held for verdict in verdicts],
        [verdict.failed for verdict in verdicts],
        Drawn(places.counts, places.nothing, slates.picks, slates.propensities, figures, places.window_ends_ms),
        table.keys,
        Rested(columns, column_counts, mean, sd),
        packed_rows(values),
        np.zeros(count) if surcharges is None else surcharges,
        np.zeros(count) + GATE_OPEN if gates is None else gates,
        _extra(held, prices, [parameters for _, parameters in quotes], answers, count),
        bytes.fromhex(catalogue.version),
        catalogue.transform.version,
        policy.version,
    )
    empty = [not number for number in places.counts.tolist()]
    return [
        Draft(
            ask,
            batch,
            at,
            packed[at],
            (states[at][1] or b"")[:CAS_BYTES],
            *heads_and_tails[at],
            _nothing(catalogue, bool(any_eligible[at]), may[at], held[at] if held else ()) if empty[at] else "",
            standings[at].wire if standings is not None else b"",
            quotes[at][0] if quotes else (),
            found[at].begun if found else NOTHING_FOUND.begun,
        )
        for at, ask in enumerate(asks)
    ]


def _degraded(sound: Sequence[bool], policy_known: bool) -> NDArray[np.int64]:
    otherwise = NOT_DEGRADED if policy_known else POLICY_UNAVAILABLE
    return np.array([otherwise if one else STATE_UNREADABLE for one in sound], np.int64)


def _quotes(
    catalogue: Catalogue, batch: Batch, values: NDArray[np.float64], found: Sequence[Found]
) -> list[tuple[Sequence[Quote | None], bytes]]:
    """What goes with the picks of each decision, and the parameters as the record has them; empty: with none."""
    quoting = catalogue.quoting
    if quoting is None:
        return []
    quotes: list[tuple[Sequence[Quote | None], bytes]] = []
    counts, times = batch.places.counts.tolist(), batch.times_ms.tolist()
    for at, row in enumerate(batch.picks.tolist()):
        picked = row[: counts[at]]
        if not any(quoting.quoted[offer] for offer in picked):
            quotes.append(((), b""))
            continue
        variables = catalogue.variables_of(values[at].tolist())
        made = quoting.quotes(picked, variables, times[at], found[at].held if found else NOTHING_FOUND.held)
        quotes.append((made, quoting.packed(picked, made)))
    return quotes


def _extra(
    held: Sequence[tuple[Hold, ...]] | None,
    prices: NDArray[np.float64] | None,
    parameters: Sequence[bytes],
    answers: Sequence[tuple[tuple[int, float], ...]],
    count: int,
) -> Extra:
    """What the records say besides numbers that every decision has."""
    rows = np.zeros((count, 2), np.int64)
    priced = () if prices is None else tuple((at, float(prices[at])) for at in np.flatnonzero(prices).tolist())
    if held is None and not priced and not parameters and not answers:
        return Extra.none(count)
    price_rows = basis.packed_prices(priced)
    rows[:, 1] = len(priced)
    if held is not None:
        rows[:, 0] = [len(holds) for holds in held]
    return Extra(
        *joined(
            [
                part
                for at in range(count)
                for part in (
                    (basis.packed_holds(held[at]) if held is not None else b"") + price_rows,
                    parameters[at] if parameters else b"",
                    basis.packed_values(answers[at]) if answers and answers[at] else b"",
                )
            ],
            columns=3,
        ),
        rows,
    )


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
