"""Challengers: measured on the champion's decisions, bounded in time, never served, promoted by a lower bound only."""

import asyncio
import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pytest
from click.testing import CliRunner

from engine.challengers import Challengers, options_of
from engine.cli import main
from engine.cli_challengers import _options
from engine.config import parse
from engine.errors import ConfigError
from engine.forget.entry import ForgetRecord
from engine.learner import Due, Learner
from engine.ledger import hash_of
from engine.lifecycle import Stage
from engine.limits import PARTITIONS
from engine.record import Choice, DecisionRecord, OutcomeRecord
from engine.rivermodel import Inputs, build, check_challengers
from engine.store import LogEntry
from engine.store.redis import RedisStore
from engine.tally import shortfall
from features import Offset
from models import Policy
from tests.small_engine import DAY_MS, START_MS, SmallEngine, catalogue_of
from tests.store.conftest import Server

TREE = "{river: river.tree.HoeffdingTreeClassifier, parameters: {grace_period: 50}}"
HOUR_MS = DAY_MS // 24


def shop(*challengers: str, learning: str = "period: 1h") -> bytes:
    rows = "".join(f"\n  - {{{one}}}" for one in challengers)
    return f"""
opportune: 1
name: rivals
limit: 1
channels: [{{id: web}}]
context:
  - {{name: age, type: text, values: [young, old], input: {{kind: one_hot}}}}
  - {{name: minutes, type: number, input: {{range: [0, 60]}}}}
learning: {{{learning}, drift: null, waves: 0}}
offers:
  - {{id: album, value: 10, window: 1h, treatments: [{{text: x}}]}}
  - {{id: book, value: 10, window: 1h, treatments: [{{text: x}}]}}
{"challengers:" + rows if rows else ""}
""".encode()


def taste(age: str, offer: int, hour: int) -> float:
    """The young take the album, the old the book."""
    return 0.6 if (age == "young") == (offer == 0) else 0.1


class World:
    """One partition of a log: the champion's greedy choice seven times of ten, else any at random, and who accepts."""

    def __init__(
        self,
        text: bytes,
        rate: Callable[[str, int, int], float] = taste,
        seed: int = 1,
        now_s: Callable[[], float] = lambda: 0.0,
    ) -> None:
        self.catalogue = catalogue_of(text)
        self.learner = Learner(self.catalogue, 1)
        self.challengers = Challengers(self.catalogue, now_s)
        self.rate, self.rng, self.hour, self.taken = rate, np.random.default_rng(seed), 0, 0
        self.log: dict[tuple[int, Offset], bytes | None] = {}
        transform = self.catalogue.transform
        options = options_of(self.catalogue.config.challengers[0], self.catalogue)
        self.policy = Policy.empty(self.catalogue.offer_ids, transform.dimension, options, transform.version)

    def run(self, hours: int, an_hour: int = 60) -> "World":
        for hour in range(self.hour, self.hour + hours):
            self.hour = hour
            entries = [entry for n in range(an_hour) for entry in self._one(n, an_hour)]
            self.challengers.observe(0, entries)
            due = self.learner.absorb(0, entries)
            records = {item.position: self.log[item.position] for item in due}
            self.learner.teach(due, records)
            self.challengers.learn(due, records)
            self.challengers.judge([self.learner.clock_ms])
            if self.learner.has_news:
                head, beliefs = self.learner.snapshot(whole=True)
                self.policy = self.policy.replaced(beliefs, orjson.loads(head)["version"])
                self.challengers.publish(self.learner, beliefs, whole=True)
        self.hour += 1
        return self

    def _one(self, n: int, an_hour: int) -> Iterator[LogEntry]:
        time_ms = START_MS + self.hour * HOUR_MS + n * (HOUR_MS // an_hour)
        age = ("young", "old")[int(self.rng.integers(2))]
        x = self.catalogue.transform.apply(np.array([[float(age == "old"), self.rng.uniform(0, 60)]]))
        means = self.policy.score(x)[0][0]
        best = int(means.argmax())
        shares = np.full(2, 0.15)
        shares[best] = 0.85
        offer = int(self.rng.random() < shares[1])
        key = self.catalogue.offer_keys[offer]
        slate = (Choice(key, float(shares[offer]), 1.0, float(means[offer]), 0.1, time_ms + HOUR_MS),)
        record = DecisionRecord(
            time_ms, 1, self.catalogue.version, self.catalogue.transform.version, 0, Offset.ZERO, 0, 0, 0, 0, False, 1,
            f"person-{self.taken}", "", b"", x.tobytes(), b"", b"", 0.0, slate,
        )  # fmt: skip
        made = self._entry(record.pack())
        yield made
        if self.rng.random() < self.rate(age, offer, self.hour):
            at, name = made.offset, str(made.offset)
            yield self._entry(
                OutcomeRecord(at, key, 1, Stage.ACCEPTED, time_ms + 1, 0.0, hash_of(name), name, b"").pack()
            )

    def _entry(self, data: bytes) -> LogEntry:
        self.taken += 1
        entry = LogEntry(Offset(START_MS, self.taken), data)
        self.log[0, entry.offset] = data
        return entry

    def figures(self) -> dict[str, dict[str, Any]]:
        return {one["name"]: one for one in self.challengers.figures()["models"]}


def test_one_like_the_champion_differs_by_nothing_and_is_not_promoted() -> None:
    world = World(shop("name: same, model: {ours: {}}")).run(30)
    same = world.figures()["same"]
    assert same["decisions"] > 1_500
    assert same["value"]["mean"] == pytest.approx(0.0, abs=0.1)
    assert same["brier"]["mean"] == pytest.approx(0.0, abs=0.01)
    assert shortfall(same)


def test_a_better_one_passes_and_a_worse_one_does_not() -> None:
    """The champion forgets within the hour; one that remembers is better, and one that expects nothing for long is not.

    What each is worth is known here: the difference lies within the interval.
    """
    better = "name: remembers, model: {ours: {half_life: null}}"
    worse = "name: stiff, model: {ours: {prior_strength: 1e6}}"
    world = World(shop(better, worse, learning="period: 5m, half_life: 5m, prior_strength: 10")).run(100)
    found = world.figures()
    value = found["remembers"]["value"]
    assert value["low"] > 0.0 and shortfall(found["remembers"]) == ""
    assert found["remembers"]["brier"]["low"] > 0.0 and found["remembers"]["log_loss"]["low"] > 0.0
    assert shortfall(found["stiff"])
    # The best choice earns 6 a decision; one at random, which is what an hour's memory hardly beats, 3.5.
    total = found["remembers"]["champion_value"] + value["mean"]
    assert total == pytest.approx(6.0, abs=0.4)


def test_a_shadow_of_river_learns_and_is_measured_on_the_same_rows() -> None:
    prior = "name: prior, model: {river: river.dummy.PriorClassifier}"
    world = World(shop(f"name: tree, model: {TREE}", prior)).run(50)
    found = world.figures()
    assert found["tree"]["decisions"] == found["prior"]["decisions"] > 2_500
    assert found["tree"]["offers"] >= found["tree"]["decisions"], "some repeated a draw"
    assert found["tree"]["brier"]["own"] < found["prior"]["brier"]["own"]
    assert found["prior"]["value"]["high"] < 0.0, "one best offer for all is worse than the champion"
    assert not found["tree"]["failed"]


def test_a_response_without_another_target_teaches_river_nothing_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    """A click that is told after the window has closed: the no stays what it was, and was learnt once."""
    text = shop(f"name: tree, model: {TREE}")
    expected = World(text).run(30).figures()["tree"]["brier"]
    learn = Challengers.learn

    def twice(self: Challengers, due: Sequence[Due], records: Any) -> None:
        learn(self, due, records)
        again = [replace(one.lesson, old=one.lesson.new, new_response=True) for one in due]
        learn(self, [Due(one.partition, lesson) for one, lesson in zip(due, again, strict=True)], records)

    monkeypatch.setattr(Challengers, "learn", twice)
    assert World(text).run(30).figures()["tree"]["brier"] == expected


def test_an_apprentice_comes_to_choose_what_is_chosen() -> None:
    """The champion takes its best offer 85 times of 100; who has understood that agrees as often."""
    world = World(shop(f"name: pupil, mode: apprentice, model: {TREE}")).run(60)
    agreement = world.figures()["pupil"]["agreement"]
    assert 0.75 < agreement["low"] < agreement["mean"] <= 0.88


def test_decisions_count_when_their_windows_have_closed_and_only_once() -> None:
    world = World(shop("name: same, model: {ours: {}}")).run(1)
    assert world.figures()["same"]["decisions"] == 0, "all windows are open: only the yeses are known"
    world.run(1)
    assert 55 <= world.figures()["same"]["decisions"] <= 60
    again = [LogEntry(at, data) for (_, at), data in world.log.items() if data is not None]
    world.challengers.observe(0, again)
    assert len(world.challengers._open) <= 65


def test_open_decisions_of_who_is_forgotten_are_not_counted() -> None:
    world = World(shop("name: same, model: {ours: {}}")).run(1)
    before = list(world.challengers._open)
    entry = ForgetRecord(START_MS, tuple(at for _, at in before[:10])).pack()
    world.challengers.observe(0, [LogEntry(Offset(START_MS, 500), entry), LogEntry(Offset(START_MS, 501), entry[:-1])])
    assert list(world.challengers._open) == before[10:]
    world.challengers.judge([START_MS + 3 * HOUR_MS])
    assert world.figures()["same"]["decisions"] == len(before) - 10


def test_a_challenger_gets_its_share_of_the_time_and_no_more() -> None:
    """Its clock goes on by a second with every look: it is soon spent, and lets all that comes later pass."""
    ticks = iter(range(10**9))
    world = World(shop(f"name: tree, model: {TREE}, time: 0.1"), now_s=lambda: float(next(ticks))).run(5)
    tree = world.figures()["tree"]
    all_s = next(ticks)
    working_s = (all_s - tree["skipped"]) / 2  # one look at the clock if it is skipped, two if not
    assert tree["decisions"] > 5 and working_s <= 0.1 * all_s + 2.0


def test_one_that_fails_is_out_and_told_once(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World(shop(f"name: tree, model: {TREE}", "name: same, model: {ours: {}}")).run(1)

    def broken(*_: object) -> float:
        raise ArithmeticError("no")

    monkeypatch.setattr("engine.rivermodel.probability", broken)
    world.run(3)
    assert world.challengers.lines() == [(logging.WARNING, "challenger tree is out: ArithmeticError: no")]
    world.run(1)
    found = world.figures()
    assert world.challengers.lines() == []
    assert "ArithmeticError" in shortfall(found["tree"])
    assert found["same"]["decisions"] > 200 and not found["same"]["failed"]


def test_models_are_bounded_when_too_many_decisions_are_open(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("engine.challengers.CHALLENGER_DECISIONS_MAX", 20)
    world = World(shop("name: same, model: {ours: {}}")).run(10)
    same = world.figures()["same"]
    assert len(world.challengers._open) <= 20
    assert same["skipped"] > 300 and same["decisions"] >= 100


def test_inputs_come_back_by_name() -> None:
    catalogue = catalogue_of(shop())
    x = catalogue.transform.apply(np.array([[1.0, 60.0], [0.0, np.nan]]))
    inputs = Inputs(catalogue)
    assert inputs.of(x[0]) == {"age": "old", "minutes": 60.0}
    assert inputs.of(x[1]) == {"age": "young"}


def test_pipelines_and_nested_estimators_are_built() -> None:
    model = """name: bag, model: {river: [
        {river: river.preprocessing.OneHotEncoder},
        {river: river.ensemble.BaggingClassifier, parameters: {n_models: 2, seed: 1,
         model: {river: river.linear_model.LogisticRegression}}}]}"""
    text = shop(model.replace("\n", " "))
    estimator = build(parse(text).challengers[0].model)
    assert type(estimator).__name__ == "Pipeline"
    check_challengers(catalogue_of(text), text, "shop.yaml")


@pytest.mark.parametrize(
    ("challenger", "said"),
    [
        ("name: a, model: {river: river.trees.Nothing}", "river.trees.Nothing: cannot be imported"),
        ("name: a, model: {river: river.tree.Nothing}", "river.tree has no Nothing"),
        ("name: a, model: {river: river.tree.HoeffdingTreeClassifier, parameters: {depth: 1}}", "cannot be made with"),
        ("name: a, model: {river: river.linear_model.LinearRegression}", "no predict_proba_one: expected a classifier"),
        ("name: a, model: {river: river.linear_model.LogisticRegression}", "cannot learn from the inputs"),
        ("name: a, model: {}", "expected river or ours, one of them"),
        (f"name: a, model: {TREE[:-1]}, ours: {{}}}}", "expected river or ours, one of them"),
        ("name: a, mode: challenger, model: {ours: {}}", "challengers[0].mode: expected 'shadow' or 'apprentice'"),
        ("name: a, mode: apprentice, model: {ours: {}}", "an apprentice learns what is decided"),
        ("name: a, time: 0.9, model: {ours: {}}", "challengers[0].time"),
        ("name: a, model: {ours: {waves: 3}}", "not a setting that exists here"),
    ],
)
def test_errors_name_the_place_and_what_was_expected(challenger: str, said: str, tmp_path: Path) -> None:
    (tmp_path / "shop.yaml").write_bytes(shop(challenger))
    result = CliRunner().invoke(main, ["validate", str(tmp_path / "shop.yaml")])
    assert result.exit_code == 1
    assert said in result.output and "shop.yaml:14: challengers[0]" in result.output


def test_two_of_a_name_are_refused() -> None:
    with pytest.raises(ConfigError, match="challenger 'a' is already there"):
        parse(shop("name: a, model: {ours: {}}", "name: a, model: {ours: {}}"))


async def test_an_engine_serves_the_same_with_challengers_and_tells_of_them() -> None:
    """Whole path: decisions of a server, the learner's process, the head of the policy."""
    figures = []
    for challengers in ((), (f"name: tree, model: {TREE}", "name: same, model: {ours: {}}")):
        engine = SmallEngine(shop(*challengers))
        for n in range(120):
            engine.now_ms += 120_000
            answer = await engine.decide(f"person-{n}", "web", context={"age": "old" if n % 3 else "young"})
            if answer.offers and n % 2:
                await engine.report(answer.decision_id, answer.offers[0].offer_id, "accepted")
            if n % 10 == 0:
                await engine.learn()
        await engine.learn()
        head, offers = await engine.store.read_policy()
        figures.append((orjson.loads(head or b"{}"), offers))
    (plain, served), (beside, also) = figures
    assert served == also
    assert plain["challengers"] == {}
    models = {one["name"]: one for one in beside["challengers"]["models"]}
    assert models["tree"]["decisions"] == models["same"]["decisions"] > 50


async def test_what_was_counted_of_ours_goes_on_after_a_restart() -> None:
    """Models of river begin anew, and so does everything with another configuration."""
    text = shop(f"name: tree, model: {TREE}", "name: same, model: {ours: {}}")
    engine = SmallEngine(text)

    async def live(engine: SmallEngine, decisions: int) -> dict[str, dict[str, Any]]:
        for n in range(decisions):
            engine.now_ms += 120_000
            await engine.decide(f"person-{n}", "web")
        await engine.learn()
        figures = engine.learning._challengers.figures()
        return {one["name"]: one for one in figures["models"]}

    before = await live(engine, 100)
    await engine.learning.save()
    again = SmallEngine(text, engine.store)
    again.now_ms = engine.now_ms
    after = await live(again, 60)
    assert 50 < before["same"]["decisions"] == before["tree"]["decisions"]
    assert after["tree"]["decisions"] <= 60
    assert after["same"]["decisions"] == before["same"]["decisions"] + after["tree"]["decisions"]
    assert after["same"]["since_ms"] == before["same"]["since_ms"] < after["tree"]["since_ms"]
    other = SmallEngine(shop("name: same, model: {ours: {prior_rate: 0.1}}"), engine.store)
    other.now_ms = again.now_ms
    assert (await live(other, 5))["same"]["decisions"] == 0


def test_damaged_tallies_begin_anew_and_tell() -> None:
    world = World(shop("name: same, model: {ours: {}}")).run(3)
    fields, gone = world.challengers.checkpoint()
    assert gone == [] and list(fields) == ["challenger:same"]
    fresh = Challengers(world.catalogue, lambda: 0.0)
    fresh.restore({"challenger:same": fields["challenger:same"][:-9], "challenger:old": b"", "00:head": b""})
    [(_, line)] = fresh.lines()
    assert line.startswith("challenger same: tally of ") and line.endswith("it begins anew")
    assert fresh.checkpoint()[1] == ["challenger:old"] and fresh.checkpoint()[1] == []
    whole = Challengers(world.catalogue, lambda: 0.0)
    whole.restore(fields)
    assert whole.figures()["models"][0]["value"] == world.figures()["same"]["value"]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    server = Server(tmp_path_factory.mktemp("challengers"))
    server.start()
    yield server
    server.stop()


@pytest.mark.parametrize("half_life", ["90d", "36h", "5m", "1500ms", "null"])
def test_what_is_printed_to_promote_one_can_be_written_so(half_life: str) -> None:
    rival = f"name: other, model: {{ours: {{half_life: {half_life}, prior_strength: 5, prior_rate: null}}}}"
    ours = parse(shop(rival)).challengers[0].model.ours
    assert ours is not None
    [line, strength] = _options(ours)
    assert (line, strength) == (f"  half_life: {half_life}", "  prior_strength: 5.0")
    promoted = parse(shop(rival, learning=f"period: 500ms, {line.strip()}, {strength.strip()}"))
    assert promoted.learning.half_life == ours.half_life


def test_the_command_promotes_by_the_lower_bound_only(server: Server, tmp_path: Path) -> None:
    """On a real store: unknown, then not yet, then one may take over, and the others are told why not."""
    rivals = (
        "name: remembers, model: {ours: {half_life: null, prior_strength: 5}}",
        "name: same, model: {ours: {}}",
        f"name: tree, model: {TREE}",
        f"name: pupil, mode: apprentice, model: {TREE}",
    )
    text = shop(*rivals, learning="period: 5m, half_life: 5m")
    (tmp_path / "shop.yaml").write_bytes(text)
    words = ["challengers", "--config", str(tmp_path / "shop.yaml"), "--redis", server.url]
    world = World(text)

    def run(*more: str) -> tuple[int, str]:
        result = CliRunner().invoke(main, [*words, *more], catch_exceptions=False)
        return result.exit_code, result.output

    async def publish() -> None:
        store = await RedisStore.open(server.url, PARTITIONS)
        head, offers = world.learner.snapshot(whole=True)
        await store.publish_policy(
            orjson.dumps({**orjson.loads(head), "challengers": world.challengers.figures()}), offers
        )
        await store.close()

    code, output = run()
    assert code == 0 and output.startswith("not known yet")
    code, output = run("--promote", "same")
    assert code == 1 and "nothing is known of it yet" in output
    world.run(3)
    asyncio.run(publish())
    code, output = run("--promote", "remembers")
    assert code == 1 and "the log is worth" in output
    world.run(90)
    asyncio.run(publish())
    code, output = run()
    assert code == 0 and "remembers" in output and "yes" in output
    code, output = run("--promote", "remembers")
    assert code == 0 and "learning:\n  half_life: null\n  prior_strength: 5.0\n" in output
    assert "opportune apply" in output
    code, output = run("--promote", "same")
    assert code == 1 and "same is not promoted" in output
    code, output = run("--promote", "tree")
    assert code == 1 and "a model of river is not served here" in output
    code, output = run("--promote", "pupil")
    assert code == 1 and "pupil is not promoted" in output
    code, output = run("--json")
    assert {one["name"] for one in orjson.loads(output)["models"]} == {"remembers", "same", "tree", "pupil"}


def test_the_command_says_what_it_expected(tmp_path: Path) -> None:
    (tmp_path / "shop.yaml").write_bytes(shop("name: same, model: {ours: {}}"))
    for words, said in (
        ([], "expected --data or --redis"),
        (["--redis", "nonsense"], "expected one that begins with unix://, redis://"),
        (["--redis", f"unix://{tmp_path}/none"], "the store is away"),
        (["--data", str(tmp_path / "none"), "--promote", "x"], "'x' is no challenger; there are same"),
    ):
        result = CliRunner().invoke(main, ["challengers", "--config", str(tmp_path / "shop.yaml"), *words])
        assert result.exit_code and said in result.output
