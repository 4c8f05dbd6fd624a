"""What compiled code packs of a batch is what the modules of the formats read, byte for byte."""

import random
import struct

import pytest

from engine.answerwire import AnswerWriter
from engine.decide import decide
from engine.drafts import Ask, Draft
from engine.learner import prior_policy
from engine.ledger import Ledger, hash_of
from engine.limits import LEDGER_DECISIONS_MAX
from engine.record import DecisionRecord
from features import Offset
from opportune.v1 import decisions_pb2
from tests.small_engine import CONFIG, DAY_MS, START_MS, catalogue_of

CUSTOMERS = 12
CONFIGS = {
    "plain": CONFIG,
    "with limits": CONFIG
    + b"contact_policy: {caps: [{of: all, most: 9, within: 7d}], pressure: {half_life: 2d, cost: 3}, cool_off: []}\n"
    + b"exploration: {budget: {share: 0.9, customer: {answers: 2, within: 5d}}}\n",
    "points and no silence": CONFIG.replace(
        b"    contact_cost: 1\n",
        b"    contact_cost: 1\n    points: {rules: [{when: vip, points: 5}], rate_at: {0: 0.1, 5: 0.4}}\n",
    )
    + b"silence: false\n",
}


@pytest.mark.parametrize("text", CONFIGS.values(), ids=CONFIGS)
def test_what_is_packed_of_a_batch_is_what_is_packed_of_one(text: bytes) -> None:
    catalogue = catalogue_of(text)
    policy, writer, dice = prior_policy(catalogue), AnswerWriter(catalogue), random.Random(3)
    places = list(catalogue.treatments.places())
    ledgers: dict[int, bytes | None] = {}
    answered = 0
    for step in range(3 * LEDGER_DECISIONS_MAX):
        now_ms = START_MS + step * DAY_MS // 3
        some = dice.sample(range(CUSTOMERS), dice.randrange(1, CUSTOMERS))
        asks = [_ask(number, step, now_ms, dice.choice(places), dice) for number in some]
        if step == LEDGER_DECISIONS_MAX:
            ledgers[some[0]] = b"\x09 no ledger"
        results = decide(catalogue, policy, asks, [(None, ledgers.get(number)) for number in some])
        drafts = [(at, each) for at, each in enumerate(results) if isinstance(each, Draft)]
        positions = [Offset(now_ms, at) for at, _ in drafts]
        homes = [17 * at for at, _ in drafts]
        answers = writer.write_all([each for _, each in drafts], positions, homes)
        for (at, draft), position, home, answer in zip(drafts, positions, homes, answers, strict=True):
            assert answer == writer.write(draft, home, position), "written together as each alone"
            told = decisions_pb2.DecideResponse.FromString(answer)
            assert [offer.score for offer in told.offers] == [pick.score for pick in draft.picks]
            assert told.customer_id == asks[at].customer and bool(told.nothing_reason.code) is not bool(told.offers)
            assert draft.record == DecisionRecord.unpack(draft.record).pack()
            place = struct.pack("<QI", position.ms, position.seq)
            after = draft.ledger_head + place + draft.ledger_tail
            kept = Ledger.unpack(after)
            assert kept.decisions[-1].position == position
            assert kept.pack() == after or kept.contacts  # rows of contacts get their position when they are read
            ledgers[some[at]] = after
            answered += 1
    assert answered > 100
    assert any(len(Ledger.unpack(data).decisions) == LEDGER_DECISIONS_MAX for data in ledgers.values())


def _ask(number: int, step: int, now_ms: int, place: tuple[int, int, str], dice: random.Random) -> Ask:
    channel, placement, language = place
    request = f"{number}-{step // 3}" if number % 4 == 0 else ""
    limit = dice.choice([1, 2, 3])
    context = b"{}" if number % 2 else b'{"intent":"pay"}'
    customer = f"žena-{number}"
    return Ask(customer, channel, placement, (), context, limit, now_ms, language, request, hash_of(request))
