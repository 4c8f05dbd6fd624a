"""The watch over exploration: it tells when the policy or an offer stops, once, and when it begins again."""

import asyncio
import logging
import math
from collections.abc import Iterator, Sequence
from pathlib import Path

import orjson
import pytest
from click.testing import CliRunner
from prometheus_client import REGISTRY

from engine.catalogue import Catalogue
from engine.cli import main
from engine.config_schema import ExplorationAlarm
from engine.explorewatch import ExplorationWatch
from engine.learning import Learning
from engine.limits import PARTITIONS
from engine.record import Choice, DecisionRecord
from engine.store import RedisStore
from engine.store.base import LogEntry
from features import Offset
from tests.small_engine import CONFIG, START_MS, SmallEngine, catalogue_of
from tests.store.conftest import Server

EVERYWHERE = CONFIG.replace(b"    channels: [branch]\n", b"")
ALARM = b"alarm: {decisions: 100, policy: 0.05, offer: 0.05}"


def governed(text: bytes) -> bytes:
    return EVERYWHERE + b"exploration: {" + text + b"}\n"


def entries(
    catalogue: Catalogue,
    start: int,
    count: int,
    slate: list[tuple[str, float]],
    nothing: float = 0.0,
    held: bytes = b"\xff",
    version: str = "",
) -> list[LogEntry]:
    """Decisions with such a slate, at positions from `start`."""
    keys = dict(zip(catalogue.offer_ids, catalogue.offer_keys, strict=True))
    record = DecisionRecord(
        time_ms=START_MS,
        seed=1,
        config_version=version or catalogue.version,
        transform_version=catalogue.transform.version,
        policy_version=1,
        watermark=Offset.ZERO,
        latest_event_ms=0,
        channel=0,
        placement=0,
        degraded=0,
        known=True,
        limit=3,
        customer="ann",
        request_id="",
        context=b"{}",
        x=b"\0\1",
        rules_held=held,
        rules_failed=b"",
        nothing_propensity=nothing,
        slate=tuple(Choice(keys[name], p, 1.0, 0.1, 0.1, START_MS) for name, p in slate),
    )
    return [LogEntry(Offset(start + n, 0), record.pack()) for n in range(count)]


def observed(watch: ExplorationWatch, partition: int, some: Sequence[LogEntry]) -> None:
    watch.observe(partition, some)
    watch.judge()


def test_it_tells_of_the_policy_once_and_of_its_recovery() -> None:
    catalogue = catalogue_of(governed(ALARM))
    watch = ExplorationWatch(catalogue)
    observed(watch, 0, entries(catalogue, 1, 99, [("card", 1.0)]))
    assert (watch.share, watch.stopped, watch.lines(), watch.has_news) == (None, False, [], False)
    observed(watch, 0, entries(catalogue, 100, 1, [("card", 1.0)]))
    assert (watch.share, watch.stopped, watch.has_news) == (0.0, True, True)
    [(level, line), (_, offers)] = watch.lines()
    assert level == logging.WARNING and "the policy has stopped exploring" in line
    assert offers == "offers that are not explored any more: card, loan, helpline"
    offers_stopped = ["card", "loan", "helpline"]
    told = {"config": catalogue.version, "share": 0.0, "stopped": True, "offers": offers_stopped}
    assert watch.figures() == told
    assert not watch.has_news
    observed(watch, 0, entries(catalogue, 200, 100, [("card", 1.0)]))
    assert watch.stopped and watch.lines() == [], "it is told once"
    observed(watch, 0, entries(catalogue, 300, 100, [("card", 0.85), ("loan", 0.8)]))
    assert watch.share == pytest.approx(0.15) and not watch.stopped
    assert watch.lines() == [
        (logging.INFO, "the policy explores again"),
        (logging.INFO, "offers that are explored again: card, loan"),
    ]
    assert watch.names == ["helpline"]


def test_what_is_about_at_the_floor_does_not_come_and_go() -> None:
    """With a floor of a tenth two in a hundred are surely less, 19 surely more; what is between changes nothing."""
    catalogue = catalogue_of(governed(b"alarm: {decisions: 100, policy: 0.1, offer: 0.1}"))
    watch = ExplorationWatch(catalogue)
    told = []
    for turn, chance in enumerate((0.5, 0.11, 0.03, 0.02, 0.09, 0.11, 0.18, 0.19, 0.06)):
        observed(watch, 0, entries(catalogue, 100 * turn + 1, 100, [("card", 1.0 - chance)]))
        told.append((watch.stopped, "card" in watch.names))
    assert told == [(stopped, stopped) for stopped in [False] * 3 + [True] * 4 + [False] * 2]


def test_none_says_nothing_before_it_is_a_sign() -> None:
    """At a floor of one in ten thousand none of so many is luck in a third of the cases."""
    catalogue = catalogue_of(governed(b"alarm: {decisions: 10000}"))
    watch = ExplorationWatch(catalogue)
    assert ExplorationAlarm().judged_after == (10_000, 46_052)
    told = []
    for turn in range(24):
        observed(watch, 0, entries(catalogue, 2_000 * turn + 1, 2_000, [("card", 1.0)]))
        told.append((watch.stopped, watch.names))
    every = ["card", "loan", "helpline"]
    assert told == [(False, [])] * 4 + [(True, [])] * 19 + [(True, every)]


def test_an_offer_that_is_not_eligible_or_not_to_be_explored_is_not_missed() -> None:
    """The loan has rules that did not hold; the helpline is made as the best only."""
    text = governed(ALARM).replace(b"  - id: helpline\n", b"  - id: helpline\n    explore: false\n")
    catalogue = catalogue_of(text)
    watch = ExplorationWatch(catalogue)
    observed(watch, 0, entries(catalogue, 1, 300, [("card", 0.5)], held=b"\0"))
    assert not watch.stopped and watch.names == []
    observed(watch, 0, entries(catalogue, 400, 100, [("card", 0.5)], held=b"\3"))
    assert watch.names == ["loan"]


def test_who_had_nothing_to_choose_from_says_nothing() -> None:
    text = governed(ALARM).replace(b"limit: 3\n", b"limit: 3\nsilence: false\n")
    for offer in (b"- id: card", b"- id: helpline"):
        text = text.replace(offer, offer + b"\n    starts_ms: 1\n    ends_ms: 2")
    catalogue = catalogue_of(text)
    watch = ExplorationWatch(catalogue)
    observed(watch, 0, entries(catalogue, 1, 300, [("loan", 1.0)]))
    assert watch.share is None and not watch.stopped


def test_silence_is_a_choice_and_chance_like_any_other() -> None:
    catalogue = catalogue_of(governed(ALARM))
    watch = ExplorationWatch(catalogue)
    observed(watch, 0, entries(catalogue, 1, 100, [], nothing=0.75))
    assert watch.share == pytest.approx(0.25)


def test_entries_seen_before_those_of_others_and_damaged_ones_are_passed_over() -> None:
    catalogue = catalogue_of(governed(ALARM))
    watch = ExplorationWatch(catalogue)
    half = entries(catalogue, 1, 60, [("card", 0.5)])
    for _ in range(5):
        observed(watch, 0, half)
    observed(watch, 1, entries(catalogue, 1, 300, [("card", 1.0)], version="00" * 8))
    damaged = [LogEntry(entry.offset, entry.data[:cut]) for cut in (0, 1, 30, 90, 120) for entry in half]
    observed(watch, 2, [LogEntry(Offset(n + 1, 0), entry.data) for n, entry in enumerate(damaged)])
    assert watch.share is None
    observed(watch, 1, entries(catalogue, 400, 40, [("card", 0.5)]))
    assert watch.share == pytest.approx(0.5)


def test_without_an_alarm_nothing_is_watched() -> None:
    catalogue = catalogue_of(governed(b"alarm: null"))
    watch = ExplorationWatch(catalogue)
    observed(watch, 0, entries(catalogue, 1, 500, [("card", 1.0)]))
    assert (watch.share, watch.stopped, watch.names) == (None, False, [])


@pytest.mark.parametrize(("text", "dead"), [(b"method: greedy, ", 1.0), (b"strength: 3, ", 0.0)])
async def test_metrics_and_the_log_show_what_the_learner_saw(
    text: bytes, dead: float, caplog: pytest.LogCaptureFixture
) -> None:
    """From the decisions of a server through the learner's snapshot to the metrics of the server."""
    engine = SmallEngine(governed(text + ALARM))
    for n in range(120):
        await engine.decide(f"person-{n}", limit=1)
    with caplog.at_level(logging.WARNING, "engine.learning"):
        await engine.learn()
        await engine.learn()
    assert REGISTRY.get_sample_value("opportune_exploration_stopped") == dead
    share = REGISTRY.get_sample_value("opportune_exploration_share")
    assert share is not None and not math.isnan(share) and (share == 0.0) == bool(dead)
    found = REGISTRY.get_sample_value("opportune_offer_not_explored", {"offer": "card"})
    assert found == (1.0 if dead else None)
    assert bool(REGISTRY.get_sample_value("opportune_offers_not_explored")) == bool(dead)
    told = [line for line in caplog.messages if "stopped exploring" in line]
    assert len(told) == int(dead)


async def test_a_restarted_learner_goes_on_from_what_was_known() -> None:
    """It tells nothing again; with another configuration it knows nothing yet, and neither do its servers."""
    engine = SmallEngine(governed(b"method: greedy, " + ALARM))
    for n in range(120):
        await engine.decide(f"person-{n}", limit=1)
    await engine.learn()
    await engine.learning.save()
    again = Learning(engine.catalogue, engine.store, now_s=lambda: engine.now_ms / 1e3)
    await again.learner()
    assert again._exploring.stopped and again._exploring.lines() == []
    changed = SmallEngine(governed(b"method: thompson, " + ALARM), store=engine.store)
    await changed.learning.learner()
    assert not changed.learning._exploring.stopped
    await changed.watch.step(0)
    assert REGISTRY.get_sample_value("opportune_exploration_stopped") == 0.0


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    server = Server(tmp_path_factory.mktemp("exploration"))
    server.start()
    yield server
    server.stop()


def test_the_command_tells_what_the_learner_saw(server: Server, tmp_path: Path) -> None:
    """On a real store: not known, then explored, then stopped with exit code 1."""
    text = governed(b"strength: 2, " + ALARM)
    catalogue = catalogue_of(text)
    (tmp_path / "shop.yaml").write_bytes(text)
    words = ["exploration", "--config", str(tmp_path / "shop.yaml"), "--redis", server.url]

    def run() -> tuple[int, str]:
        result = CliRunner().invoke(main, words, catch_exceptions=False)
        return result.exit_code, result.output

    async def publish(slate: list[tuple[str, float]]) -> None:
        watch = ExplorationWatch(catalogue)
        observed(watch, 0, entries(catalogue, 1, 100, slate))
        store = await RedisStore.open(server.url, PARTITIONS)
        head = {"version": 1, "transform": catalogue.transform.version, "exploration": watch.figures()}
        await store.publish_policy(orjson.dumps(head), {})
        await store.close()

    code, output = run()
    assert code == 0 and "not known yet: it takes 100 decisions" in output
    asyncio.run(publish([("card", 0.8), ("loan", 0.9), ("helpline", 0.95)]))
    assert run() == (0, "method thompson, strength 2\nleft to chance: 20.00% of the last 100 decisions\n")
    asyncio.run(publish([("card", 1.0), ("loan", 0.5), ("helpline", 0.5)]))
    code, output = run()
    assert code == 1
    assert "0.00% of the last 100 decisions (stopped exploring)\nnot explored any more: card\n" in output


def test_the_command_says_what_it_expected(tmp_path: Path) -> None:
    (tmp_path / "shop.yaml").write_bytes(governed(ALARM))
    for words, said in (
        ([], "expected --data or --redis"),
        (["--redis", "nonsense"], "expected one that begins with unix://"),
        (["--redis", f"unix://{tmp_path}/none"], "the store is away"),
        (["--data", str(tmp_path / "none")], "no engine has used it"),
    ):
        result = CliRunner().invoke(main, ["exploration", "--config", str(tmp_path / "shop.yaml"), *words])
        assert result.exit_code and said in result.output
