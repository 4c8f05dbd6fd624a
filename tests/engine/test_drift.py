"""Drift of an offer's acceptance: found, told, followed; and nothing of it where nothing changed."""

import asyncio
import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from zlib import compress, decompress

import numpy as np
import orjson
import pytest
from click.testing import CliRunner
from prometheus_client import REGISTRY

from engine.attribution import Lesson
from engine.catalogue import Catalogue
from engine.cli import main
from engine.cohorts import COHORTS_KEPT_MAX, FADES_MAX
from engine.driftwatch import DriftWatch
from engine.fading import Drift, Faded
from engine.learner import DRIFT, Due, Learner, Position, posterior_options
from engine.ledger import hash_of
from engine.lifecycle import Stage
from engine.limits import PARTITIONS
from engine.record import Choice, DecisionRecord, OutcomeRecord
from engine.replay import learning_differences
from engine.store import LogEntry
from engine.store.redis import RedisStore
from engine.terms import OfValue
from features import Offset
from models import CheckpointError, Policy, Statistics
from tests.small_engine import DAY_MS, START_MS, SmallEngine, catalogue_of
from tests.store.conftest import Server

HOUR_MS = DAY_MS // 24


def shop(drift: str = "{}", learning: str = "period: 1d", offers: int = 2) -> bytes:
    rows = "".join(f"\n  - {{id: offer{n}, value: 10, window: 12h, treatments: [{{text: x}}]}}" for n in range(offers))
    return f"""
opportune: 1
name: drifting
limit: 1
channels: [{{id: web}}]
context: [{{name: minutes, type: number, input: {{range: [0, 60]}}}}]
learning: {{{learning}, drift: {drift}}}
offers:{rows}
""".encode()


@dataclass
class World:
    """A log of one partition in the making: the learner's own beliefs estimate, `rate` decides who accepts."""

    text: bytes
    rate: Callable[[int, int], float]
    """(offer, day) to acceptance."""
    a_day: int = 240
    answers: bool = False
    """Whether a no is told at once; otherwise its window closes."""
    seed: int = 1
    days: int = 0
    estimates: list[tuple[int, int, float]] = field(default_factory=list)
    """(day, offer, estimated mean) of every decision."""

    def __post_init__(self) -> None:
        self.catalogue = catalogue_of(self.text)
        self.learner = Learner(self.catalogue, 1)
        self.log: dict[Position, bytes] = {}
        self.rng = np.random.default_rng(self.seed)
        self.policy = self._prior()
        self.taken = 0

    def _prior(self) -> Policy:
        transform, options = self.catalogue.transform, posterior_options(self.catalogue)
        return Policy.empty(self.catalogue.offer_ids, transform.dimension, options, transform.version)

    def run(self, days: int) -> "World":
        """So many days go by; the served policy is renewed every hour."""
        for day in range(self.days, self.days + days):
            for hour in range(24):
                self._hour(day, hour)
        self.days += days
        return self

    def _hour(self, day: int, hour: int) -> None:
        entries: list[LogEntry] = []
        count = self.a_day // 24
        minutes = self.rng.uniform(0, 60, (count, 1))
        x = self.catalogue.transform.apply(minutes)
        means, _ = self.policy.score(x)
        offers = len(self.catalogue.offer_ids)
        for n in range(count):
            time_ms = START_MS + day * DAY_MS + hour * HOUR_MS + n * (HOUR_MS // count)
            offer = int(self.rng.integers(offers))
            mean = float(means[n, offer])
            self.estimates.append((day, offer, mean))
            key = self.catalogue.offer_keys[offer]
            at = self._append(entries, decision(self.catalogue, time_ms, x[n].tobytes(), key, mean))
            said = bool(self.rng.random() < self.rate(offer, day))
            if said or self.answers:
                stage = Stage.ACCEPTED if said else Stage.DECLINED
                self._append(
                    entries,
                    OutcomeRecord(at, key, 1, stage, time_ms + 1, 0.0, hash_of(str(at)), str(at), b"").pack(),
                )
        due: list[Due] = self.learner.absorb(0, entries)
        self.learner.teach(due, {item.position: self.log[item.position] for item in due})
        if self.learner.has_news:
            head, beliefs = self.learner.snapshot()
            self.policy = self.policy.replaced(beliefs, orjson.loads(head)["version"])

    def _append(self, entries: list[LogEntry], data: bytes) -> Offset:
        self.taken += 1
        at = Offset(START_MS, self.taken)
        entries.append(LogEntry(at, data))
        self.log[0, at] = data
        return at

    @property
    def drifts(self) -> list[dict[str, float | str]]:
        figures = self.learner.drift.figures(self.learner.clock_ms)
        return list(figures["offers"])

    def error(self, offer: int, day: int) -> float:
        """Mean distance of a day's estimates from the truth."""
        found = [mean for on, which, mean in self.estimates if (on, which) == (day, offer)]
        return float(np.mean(np.abs(np.array(found) - self.rate(offer, day))))


def decision(catalogue: Catalogue, time_ms: int, x: bytes, key: int, mean: float) -> bytes:
    slate = (Choice(key, 0.5, 1.0, mean, 0.1, time_ms + DAY_MS // 2),)
    return DecisionRecord(
        time_ms, 1, catalogue.version, catalogue.transform.version, 0, Offset.ZERO, 0, 0, 0, 0, False, 1,
        "ann", "", b"", x, b"", b"", 0.0, slate,
    ).pack()  # fmt: skip


def flips(offer: int, day: int) -> float:
    """The first offer falls from 40 % to 10 % on the 20th day; the other stays."""
    return (0.4 if day < 20 else 0.1) if offer == 0 else 0.2


@pytest.mark.parametrize("answers", [True, False])
def test_a_flip_is_found_and_the_policy_follows_sooner(answers: bool) -> None:
    """The error of the 15 days after the day of the change is less than half of what it is without; sums are the same.

    Without answers the policy has to wait for windows to close, with or without the watch.
    """
    watched = World(shop(), flips, answers=answers).run(36)
    unwatched = World(shop("null"), flips, answers=answers).run(36)
    [drift] = watched.drifts
    assert drift["offer"] == "offer0"
    assert drift["before"] == pytest.approx(0.4, abs=0.05) and drift["after"] == pytest.approx(0.1, abs=0.06)
    assert 19.0 <= (int(drift["change_ms"]) - START_MS) / DAY_MS <= 21.0
    errors = [np.mean([world.error(0, day) for day in range(21, 36)]) for world in (watched, unwatched)]
    assert errors[0] < errors[1] / 2
    days = [
        next((day for day in range(20, 36) if world.error(0, day) < 0.06), 36) - 20 for world in (watched, unwatched)
    ]
    assert days[0] <= 8 and days[1] >= 2 * days[0], days
    assert watched.learner.statistics == unwatched.learner.statistics


@pytest.mark.parametrize("answers", [True, False])
def test_without_a_change_there_is_no_alarm_and_no_bit_differs(answers: bool) -> None:
    """From the first decision on, when all that is known are the yeses; and while traffic falls to a tenth and back."""

    def steady(offer: int, day: int) -> float:
        return (0.4, 0.2, 0.05, 0.1)[offer]

    watched, unwatched = (World(shop(drift, offers=4), steady, 960, answers) for drift in ("{}", "null"))
    for world in (watched, unwatched):
        world.run(8)
        world.a_day = 96
        world.run(8)
        world.a_day = 960
        world.run(8)
    assert watched.drifts == []
    assert watched.learner.snapshot(whole=True)[1] == unwatched.learner.snapshot(whole=True)[1]


def test_a_rise_is_found_too_and_its_lines_are_told_once() -> None:
    world = World(shop(), lambda offer, day: 0.05 if day < 10 or offer else 0.4, answers=True).run(14)
    [(level, line)] = world.learner.drift.lines()
    assert level == logging.WARNING and line.startswith("drift: acceptance of offer0 rose from 4.")
    assert world.learner.drift.lines() == []


def test_a_restarted_learner_goes_on_where_the_checkpoint_was() -> None:
    """Restored every three days from its checkpoints, it finds the same drift on the same day."""
    through, restarted = World(shop(), flips, answers=True), World(shop(), flips, answers=True)
    stored: dict[str, bytes] = {}
    for _ in range(10):
        through.run(3)
        restarted.run(3)
        fields, removed = restarted.learner.checkpoint()
        stored = {name: data for name, data in stored.items() if name not in removed} | fields
        restarted.learner = Learner.restore(restarted.catalogue, 1, stored)
    assert [d["change_ms"] for d in restarted.drifts] == [d["change_ms"] for d in through.drifts]
    assert restarted.drifts and not restarted.learner.drift.lines(), "what the last learner told is not told again"
    assert restarted.learner.statistics == through.learner.statistics
    drift = next(name for name in stored if DRIFT in name)
    with pytest.raises(CheckpointError, match=r"drift of offer 'offer0'.*damaged"):
        Learner.restore(restarted.catalogue, 1, stored | {drift: _resealed(stored[drift])})
    undrifted = {name: data for name, data in stored.items() if DRIFT not in name}
    found = learning_differences(undrifted, through.learner)
    # A restart pushes a whole snapshot, so from then on the two worlds estimate in other last digits.
    assert [line for line in found if "calibration" not in line] == []


def _resealed(data: bytes) -> bytes:
    return compress(decompress(data)[:-1] + b"?", 1)


def test_what_is_kept_of_an_offer_is_bounded() -> None:
    """It flips every other day, on and on."""
    world = World(shop(offers=1), lambda offer, day: 0.9 if day // 2 % 2 else 0.1, 720, answers=True)
    sizes = []
    for _ in range(6):
        world.run(6)
        fields, _ = world.learner.checkpoint()
        sizes += [len(decompress(data)) for name, data in fields.items() if DRIFT in name]
    assert len(sizes) == 6 and max(sizes) < (COHORTS_KEPT_MAX + 20) * 40 + FADES_MAX * 60
    assert world.drifts


def test_lessons_taken_back_count_once_and_late_ones_not_at_all() -> None:
    """A late yes that replaces a no, a yes that is cancelled, an outcome told twice: the cohort has what is true."""
    catalogue = catalogue_of(shop())
    key = catalogue.offer_keys[0]
    watch = DriftWatch(catalogue)
    record = DecisionRecord.unpack(decision(catalogue, START_MS, bytes(catalogue.transform.dimension), key, 0.25))
    watch.observe([LogEntry(Offset(1, 1), record.pack())])

    def learn(old: int | None, new: int | None) -> tuple[int, int, int]:
        watch.learn(Lesson(Offset(1, 1), 1, key, START_MS, old, new), record)
        [cohort] = watch._offers[0].open.values()
        return cohort.lessons, cohort.targets, cohort.estimates

    assert learn(None, 0) == (1, 0, 250_000)
    assert learn(0, 100) == (1, 100, 250_000)
    assert learn(100, None) == (0, 0, 0)
    assert learn(None, 100) == (1, 100, 250_000)
    assert watch.judge(START_MS + DAY_MS, lambda offer, period: (0.0, 1.0)) == set()
    watch.learn(Lesson(Offset(1, 1), 1, key, START_MS, 100, 0), record)
    assert not watch._offers[0].open and watch._offers[0].kept[0].targets == 100
    watch.learn(Lesson(Offset(1, 1), 1, key, START_MS, 100, None), record)
    [cohort] = watch._offers[0].kept
    assert (cohort.lessons, cohort.targets, cohort.estimates) == (0, 0, 0), "but it can be forgotten"


@pytest.mark.parametrize("mean", [float("nan"), float("inf")])
def test_estimates_that_are_none_and_damaged_entries_are_passed_over(mean: float) -> None:
    catalogue = catalogue_of(shop())
    key = catalogue.offer_keys[0]
    watch = DriftWatch(catalogue)
    data = decision(catalogue, START_MS, bytes(catalogue.transform.dimension), key, mean)
    watch.observe(LogEntry(Offset(1, n), part) for n, part in enumerate([data, data[:40], b"", data[:-1]]))
    watch.learn(Lesson(Offset(1, 0), 1, key, START_MS, None, 100), DecisionRecord.unpack(data))
    watch.learn(Lesson(Offset(1, 0), 1, 77, START_MS, None, 100), DecisionRecord.unpack(data))
    assert watch.judge(START_MS + 9 * DAY_MS, lambda offer, period: (0.0, 1.0)) == set()
    assert watch.figures(START_MS)["offers"] == []


def test_what_faded_weighs_less_and_the_sums_stay() -> None:
    sums = Statistics(dimension=1, transform_version=0)
    x = np.full((3, 1), 127, np.int8)
    sums.learn(["card"] * 3, [0, 5, 9], x, [100, 100, 0], [1, 1, 1])
    sums.learn(["loan"] * 3, [0, 5, 9], x, [100, 100, 0], [1, 1, 1])
    sums.learn(["card"] * 3, [0, 5, 9], x, [0, 0, 0], [1, 1, 1], [True, True, True])
    sums.learn(["card"] * 3, [0, 5, 9], x, [0, 0, 0], [-1, -1, -1])
    before = sums.to_bytes()
    faded = Faded(sums, {"card": [Drift("card", 5, 0, 0, 0.0, 1.0, 1, 0.5), Drift("card", 9, 0, 0, 0.0, 1.0, 1, 0.1)]})
    assert faded.offers == ("card", "loan")
    assert faded.combined("card", 9, None)[2] == pytest.approx(1.0 + 0.1 + 0.05)
    assert faded.combined("card", 9, 4.0)[2] == pytest.approx(1.0 + 0.1 * 0.5 + 0.05 * 0.5 ** (9 / 4))
    assert faded.combined("card", 9, None).r == pytest.approx(127 * (1.0 + 0.1 + 0.05))
    assert faded.combined("loan", 9, None)[2:4] == sums.combined("loan", 9, None)[2:4]
    of_value = OfValue(faded, {"card": (0.0, 2.0)})
    assert of_value.combined("card", 9, None)[1] == pytest.approx(2.0 * 127 * (10.0 + 5.0))
    assert sums.to_bytes() == before


async def test_from_the_log_of_an_engine_to_its_metrics_and_its_log(caplog: pytest.LogCaptureFixture) -> None:
    engine = SmallEngine(shop(learning="period: 1h"))
    rng = np.random.default_rng(3)
    with caplog.at_level(logging.WARNING, "engine.learning"):
        for n in range(600):
            engine.now_ms += 60_000
            answer = await engine.decide(f"person-{n}", "web")
            for offer in answer.offers:
                said = rng.random() < (0.9 if n < 300 else 0.1)
                await engine.report(answer.decision_id, offer.offer_id, "accepted" if said else "declined")
            if n % 20 == 0:
                await engine.learn()
    told = [line for line in caplog.messages if line.startswith("drift: ")]
    assert told and all("fell" in line for line in told)
    drifted = REGISTRY.get_sample_value("opportune_offers_drifted")
    assert drifted == len(told)
    name = told[0].split()[3]
    assert (REGISTRY.get_sample_value("opportune_offer_drift", {"offer": name}) or 0.0) < -0.5


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    server = Server(tmp_path_factory.mktemp("drift"))
    server.start()
    yield server
    server.stop()


def test_the_command_tells_what_the_learner_found(server: Server, tmp_path: Path) -> None:
    """On a real store: not known, then nothing, then a drift with exit code 1, later one that is no longer recent."""
    world = World(shop(), flips, answers=True)
    (tmp_path / "shop.yaml").write_bytes(world.text)
    words = ["drift", "--config", str(tmp_path / "shop.yaml"), "--redis", server.url]

    def run(*more: str) -> tuple[int, str]:
        result = CliRunner().invoke(main, [*words, *more], catch_exceptions=False)
        return result.exit_code, result.output

    async def publish(days: int) -> None:
        world.run(days)
        store = await RedisStore.open(server.url, PARTITIONS)
        await store.publish_policy(*world.learner.snapshot(whole=True))
        await store.close()

    assert run() == (
        0,
        "not known yet: the learner has not published a policy with this configuration\n",
    )
    asyncio.run(publish(2))
    assert run() == (0, "no offer has drifted\n")
    asyncio.run(publish(24))
    code, output = run()
    assert code == 1 and "offer0" in output and "fell" in output and "recent" in output
    code, output = run("--json")
    found = orjson.loads(output)
    assert code == 1 and found["known"] and [row["offer"] for row in found["offers"]] == ["offer0"]
    asyncio.run(publish(9))
    code, output = run()
    assert code == 0 and "offer0" in output and "recent" not in output


def test_the_command_says_what_it_expected(tmp_path: Path) -> None:
    (tmp_path / "shop.yaml").write_bytes(shop())
    for words, said in (
        ([], "expected --data or --redis"),
        (["--redis", "nonsense"], "expected one that begins with unix://"),
        (["--redis", f"unix://{tmp_path}/none"], "the store is away"),
        (["--data", str(tmp_path / "none")], "no engine has used it"),
    ):
        result = CliRunner().invoke(main, ["drift", "--config", str(tmp_path / "shop.yaml"), *words])
        assert result.exit_code and said in result.output
