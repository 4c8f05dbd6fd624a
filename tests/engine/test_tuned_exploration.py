"""The strength of exploration, found from what one step less would have learnt and earned."""

from collections.abc import Callable, Iterator

import numpy as np
import orjson
import pytest

from engine.again import made_again
from engine.cli_exploration import _tuned
from engine.decide import Ask, Draft, decide
from engine.errors import ConfigError
from engine.forget.entry import ForgetRecord
from engine.learner import Learner, prior_policy
from engine.ledger import hash_of
from engine.lifecycle import Stage
from engine.policyfacts import PolicyFacts
from engine.record import DecisionRecord, OutcomeRecord
from engine.store import LogEntry
from engine.tuning import Tuning
from features import Offset
from tests.small_engine import DAY_MS, START_MS, SmallEngine, catalogue_of

HOUR_MS = DAY_MS // 24

SHOP = """
opportune: 1
name: tuned
limit: 1
silence: false
channels: [{{id: web}}]
exploration: {{strength: tuned, tuning: {{strengths: [0.1, 0.4, 1], decisions: 500}}}}
learning: {{period: 1h, half_life: {half_life}, drift: null, waves: 0, prior_rate: 0.3, prior_strength: 2}}
offers:
  - {{id: album, value: 10, window: 1h, treatments: [{{text: x}}]}}
  - {{id: book, value: 10, window: 1h, treatments: [{{text: x}}]}}
  - {{id: card, value: 10, window: 1h, treatments: [{{text: x}}]}}
"""

Rate = Callable[[int, int], float]
"""From (offer, hour) to the share that accepts."""


class World:
    """Real decisions of a stream of new customers; who accepts is known, and so is the best."""

    def __init__(self, rate: Rate, half_life: str, seed: int) -> None:
        text = SHOP.format(half_life=half_life).encode()
        self.catalogue = catalogue_of(text)
        self.learner = Learner(self.catalogue, 1)
        self.tuning = Tuning(self.catalogue)
        self.rate, self.rng, self.hour, self.taken = rate, np.random.default_rng(seed), 0, 0
        self.log: dict[tuple[int, Offset], bytes | None] = {}
        self.policy = prior_policy(self.catalogue)
        self.facts = PolicyFacts.none(0)
        self.strengths: list[float] = []

    def run(self, hours: int, an_hour: int = 50) -> "World":
        for _ in range(hours):
            entries = list(self._hour(an_hour))
            due = self.learner.absorb(0, entries)
            self.tuning.observe(0, entries)
            records = {item.position: self.log[item.position] for item in due}
            self.learner.teach(due, records)
            self.tuning.learn(due, records)
            self.tuning.judge([self.learner.clock_ms])
            self.tuning.begin(self.learner)
            head, beliefs = self.learner.snapshot(whole=True)
            self.tuning.renew(self.learner, whole=True)
            facts = orjson.loads(head) | {"tuning": self.tuning.figures()}
            self.policy = self.policy.replaced(beliefs, facts["version"])
            self.facts = PolicyFacts.read(facts, ())
            self.strengths.append(self.tuning.strength)
            self.hour += 1
        return self

    def _hour(self, count: int) -> Iterator[LogEntry]:
        asks = [
            Ask(f"person-{self.taken}-{n}", 0, 0, (), b"", 1, START_MS + self.hour * HOUR_MS + n, "en", "", 0)
            for n in range(count)
        ]
        for draft in decide(self.catalogue, self.policy, asks, [(None, None)] * count, facts=self.facts):
            assert isinstance(draft, Draft)
            made = self._entry(draft.record)
            yield made
            [pick] = draft.picks
            if self.rng.random() < self.rate(pick.offer, self.hour):
                key, name = self.catalogue.offer_keys[pick.offer], str(made.offset)
                outcome = OutcomeRecord(
                    made.offset, key, 1, Stage.ACCEPTED, draft.ask.time_ms + 1, 0.0, hash_of(name), name, b""
                )
                yield self._entry(outcome.pack())

    def _entry(self, data: bytes) -> LogEntry:
        self.taken += 1
        entry = LogEntry(Offset(START_MS, self.taken), data)
        self.log[0, entry.offset] = data
        return entry


def settled(offer: int, hour: int) -> float:
    """The album is the best one for good."""
    return (0.5, 0.2, 0.2)[offer]


def moving(offer: int, hour: int) -> float:
    """The best one changes every thirty hours, and the others are no worse than they were."""
    return 0.7 if offer == hour // 30 % 3 else 0.2


@pytest.mark.parametrize("seed", [1, 2])
def test_where_it_is_useless_it_falls_to_the_least(seed: int) -> None:
    """A short memory is never sure, so it explores for good, and finds what it knows."""
    world = World(settled, "2h", seed).run(70)
    assert world.strengths[0] == 1.0 and world.strengths[-1] == 0.1
    for step in world.tuning.figures()["steps"]:
        assert step["to"] < step["from"] and step["low"] > 0.0


def test_where_it_pays_it_stays_or_comes_back() -> None:
    assert set(World(moving, "20h", 1).run(90).strengths) == {1.0}
    world = World(moving, "20h", 4).run(75)
    down, up = world.tuning.figures()["steps"]
    assert (down["from"], down["to"], up["to"]) == (1.0, 0.4, 1.0), "within one season of the world less is enough"
    assert up["high"] < 0.0
    # What was decided at every strength is made again from its records, to the bit.
    records = [DecisionRecord.unpack(data) for data in world.log.values() if data is not None and data[0] == 1]
    assert len({record.slate[0].sd for record in records}) > 30
    assert made_again(world.catalogue, records[::7]) == [[]] * len(records[::7])


def test_where_nothing_would_be_done_otherwise_it_stays() -> None:
    """A world long known: less would do the same, so nothing is seen of what it is worth."""
    world = World(settled, "5000h", 1).run(40)
    world.tuning.drop()
    world.tuning._at, world.tuning._steps = 2, []
    world.run(40)
    figures = world.tuning.figures()
    assert figures["strength"] == 1.0 and figures["steps"] == []


def test_the_engines_distribution_is_that_of_the_record(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World(settled, "5h", 1).run(2)
    seen: list[np.ndarray] = []
    shares = world.tuning._shares
    monkeypatch.setattr(world.tuning, "_shares", lambda *given: seen.append(shares(*given)) or seen[-1])
    before = len(world.log)
    world.run(1)
    records = [DecisionRecord.unpack(data) for data in list(world.log.values())[before:] if data and data[0] == 1]
    keys = world.catalogue.offer_keys
    found = [seen[0][row, keys.index(record.slate[0].key)] for row, record in enumerate(records)]
    assert found == pytest.approx([record.slate[0].propensity for record in records], abs=1e-9)
    assert seen[0].sum(axis=1) == pytest.approx(1.0) and seen[1].sum(axis=1) == pytest.approx(1.0)


def test_a_restart_goes_on_with_the_strength_and_anew_with_the_evidence() -> None:
    world = World(settled, "2h", 2).run(30)
    told = world.tuning.figures()
    assert told["strength"] < 1.0 and told["decisions"] > 0
    again = Tuning(world.catalogue)
    again.resume(orjson.loads(orjson.dumps(told)))
    assert (again.strength, again.figures()["steps"]) == (told["strength"], told["steps"])
    assert "decisions" not in again.figures()
    other = Tuning(catalogue_of(SHOP.replace("0.4, 1]", "0.5, 1]").format(half_life="2h").encode()))
    other.resume(told)
    assert other.strength == 1.0, "of other strengths it says nothing"


async def test_the_strength_in_service_is_the_one_that_is_told() -> None:
    engine = SmallEngine(SHOP.format(half_life="2h").encode())

    async def unsure() -> float:
        await engine.learn()
        engine.learning._tuning.has_news = True
        await engine.learn()
        answer = await engine.decide("ann", "web", limit=1)
        record = (await engine.service.lookups.found(answer.decision_id))[-1]
        engine.now_ms += HOUR_MS
        return float(record.slate[0].sd)

    for n in range(8):
        answer = await engine.decide(f"c{n}", "web")
        await engine.report(answer.decision_id, answer.offers[0].offer_id, "accepted")
    most = await unsure()
    engine.learning._tuning._at = 0
    sure = await unsure()
    assert sure == pytest.approx(0.1 * most, rel=0.02)
    assert engine.service.decider.serving.facts.strength == 0.1
    # Another learner, as after a crash, goes on there.
    engine.learning._learner, engine.learning._tuning = None, Tuning(engine.catalogue)
    await engine.learning.learner()
    assert engine.learning._tuning.strength == 0.1


def test_people_are_told_each_step_and_its_evidence() -> None:
    world = World(settled, "2h", 2).run(30)
    grid = world.catalogue.explorer.grid
    lines = list(_tuned(world.tuning.figures(), grid))
    assert lines[0].startswith("tuned among 0.1, 0.4, 1: 0.")
    assert "UTC: 1 → 0.4: one step less would earn +" in lines[1]
    assert any("decisions would have been made otherwise" in line for line in lines)
    assert list(_tuned({}, grid)) == ["tuned among 0.1, 0.4, 1: nothing is known yet, it begins with 1"]


def test_who_is_forgotten_leaves_the_second_learner_too() -> None:
    world = World(settled, "2h", 1).run(5)
    assert world.tuning._epoch is not None
    world.tuning.observe(0, [LogEntry(Offset(START_MS, world.taken + 1), ForgetRecord(START_MS, ()).pack())])
    assert world.tuning._epoch is None


@pytest.mark.parametrize(
    ("exploration", "told"),
    [
        ("{strength: tuned, method: greedy}", "exploration.strength: method greedy is not tuned; expected method: th"),
        ("{strength: tuned, method: epsilon_greedy}", "method epsilon_greedy is not tuned"),
        ("{strength: 1, tuning: {decisions: 500}}", "exploration.tuning: the strength is given; expected strength: t"),
        ("{strength: tuned, tuning: {strengths: [1, 0.3]}}", "expected each one larger than the one before"),
        ("{strength: tuned, tuning: {strengths: [0, 0.3]}}", "expected greater than 0, got 0"),
        ("{strength: tuned, tuning: {strengths: [1]}}", "expected at least 2 in the list, there are 1"),
        ("{strength: tuned, tuning: {decisions: 1}}", "expected greater than or equal to 500, got 1"),
        ("{strength: loud}", "expected 'tuned' or a valid number, got 'loud'"),
    ],
)
def test_a_mistake_is_told(exploration: str, told: str) -> None:
    lines = SHOP.format(half_life="2h").splitlines()
    at = next(number for number, line in enumerate(lines) if line.startswith("exploration:"))
    lines[at] = f"exploration: {exploration}"
    with pytest.raises(ConfigError) as refused:
        catalogue_of("\n".join(lines).encode())
    assert told in str(refused.value)
