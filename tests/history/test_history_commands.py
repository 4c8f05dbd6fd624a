"""`opportune backfill` and `opportune dataset` as people call them."""

import asyncio
from pathlib import Path

import polars as pl
import pytest
from click.testing import CliRunner, Result

from engine.cli import main
from engine.limits import PARTITIONS
from engine.store import RedisStore
from tests.history.past import SHOP, catalogue_of
from tests.store.conftest import Server

PURCHASES = "client,sold_at,total\nann,2024-05-01,10\nbob,2024-05-02,never\nann,2024-05-03,20\n"
COLUMNS = ["--type", "purchase", "--customer", "client", "--time", "sold_at", "--map", "amount=total"]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory):
    server = Server(tmp_path_factory.mktemp("cli"))
    server.start()
    yield server
    server.stop()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "past.yaml").write_text(SHOP)
    (tmp_path / "purchases.csv").write_text(PURCHASES)
    (tmp_path / "labels.csv").write_text("customer,time,bought\nann,2024-05-02,1\n")
    return tmp_path


def run(folder: Path, command: str, *arguments: str | Path) -> Result:
    words = [command, "--config", str(folder / "past.yaml"), *map(str, arguments)]
    return CliRunner().invoke(main, words, catch_exceptions=False)


def test_check_loads_nothing_and_says_what_is_wrong(folder: Path) -> None:
    result = run(folder, "backfill", *COLUMNS, "--check", folder / "purchases.csv")
    assert result.exit_code == 1
    assert "2 of 3 rows are good" in result.output
    assert "1 × attributes[amount]: expected a finite number" in result.output
    assert "purchases.csv row 3: attributes[amount]: 'never', expected a finite number" in result.output
    assert "bytes read" in result.output
    assert "events folded" not in result.output, "none is"


def test_backfill_loads_tells_and_passes_over(folder: Path, server: Server) -> None:
    words = [*COLUMNS, "--redis", server.url, "--work", folder / "work", folder / "purchases.csv"]
    result = run(folder, "backfill", *words)
    assert result.exit_code == 0, result.output
    assert "loaded 2 events; 1 customers written" in result.output
    assert "1 of them have events of these files on their timelines" in result.output
    assert "refused 1 rows" in result.output
    result = run(folder, "backfill", *words)
    assert result.exit_code == 0, result.output
    assert f"passed over: {folder / 'purchases.csv'}: loaded before" in result.output

    async def record() -> bytes | None:
        store = RedisStore(server.url, PARTITIONS)
        [found] = await store.read_features(["ann"])
        await store.close()
        return found

    catalogue = catalogue_of()
    assert catalogue.layout.values(asyncio.run(record()), 1_714_780_800_000)["spent"] == 30.0


@pytest.fixture
def own(tmp_path_factory: pytest.TempPathFactory):
    """A server that no other test has."""
    server = Server(tmp_path_factory.mktemp("own"))
    server.start()
    yield server
    server.stop()


def test_features_of_another_version_than_the_one_in_force_are_not_written(folder: Path, own: Server) -> None:
    former, wider = folder / "past.yaml", folder / "wider.yaml"
    wider.write_text(SHOP + "  - {name: baskets, event: purchase, function: count}\n")
    where = ["--redis", own.url]
    words = ["backfill", *COLUMNS, *where, "--work", str(folder / "work"), str(folder / "purchases.csv")]

    def called(*words: str) -> Result:
        return CliRunner().invoke(main, list(words), catch_exceptions=False)

    def loaded(config: Path) -> Result:
        return called(*words, "--config", str(config))

    assert called("apply", str(wider), *where, "--by", "ann").exit_code == 0
    before = called("versions", *where).output
    in_force, given = (catalogue_of(path.read_text()).version for path in (wider, former))
    for result in (loaded(former), called("backfill", "--config", str(former), *where, "--from-log")):
        assert result.exit_code == 1
        assert f"is version {given}, but version {in_force} is in force, with other features" in result.output
        assert "opportune apply" in result.output
        assert "opportune versions --export active" in result.output
    assert called("versions", *where).output == before
    assert asyncio.run(kept(own.url)) == (None, {}, {catalogue_of(wider.read_text()).layout.version: in_force})
    assert "loaded 2 events" in loaded(wider).output


def test_another_version_with_the_same_features_may_be_given(folder: Path, own: Server) -> None:
    other = folder / "other.yaml"
    other.write_text(SHOP.replace("value: 40", "value: 50"))
    assert CliRunner().invoke(main, ["apply", str(other), "--redis", own.url, "--by", "ann"]).exit_code == 0
    words = [*COLUMNS, "--redis", own.url, "--work", folder / "work", folder / "purchases.csv"]
    assert "loaded 2 events" in run(folder, "backfill", *words).output


async def kept(url: str) -> tuple[bytes | None, dict[str, bytes], dict[int, str]]:
    """Of ann the record, marks of jobs, and the layouts that the store knows."""
    store = RedisStore(url, PARTITIONS)
    try:
        [record] = await store.read_features(["ann"])
        return record, await store.marks(0), await store.load_layouts()
    finally:
        await store.close()


def test_households_are_filled_and_told(folder: Path, server: Server) -> None:
    text = SHOP.replace("events:\n", "entities: [{kind: household, attribute: home}]\nevents:\n", 1)
    text = text.replace("attributes:\n      amount", "attributes:\n      home: {type: text}\n      amount", 1)
    home = "  - {name: house_spent, entity: household, event: purchase, function: sum, attribute: amount}\n"
    (folder / "past.yaml").write_text(text.replace("features:\n", f"features:\n{home}", 1))
    lines = (folder / "purchases.csv").read_text().splitlines()
    homes = ["home", *(f"h{number % 2}" for number in range(len(lines) - 1))]
    (folder / "purchases.csv").write_text("".join(f"{line},{h}\n" for line, h in zip(lines, homes, strict=True)))
    result = run(folder, "backfill", *COLUMNS, "--redis", server.url, "--work", folder / "w", folder / "purchases.csv")
    assert result.exit_code == 0, result.output
    assert "1 of them belong to something by these files, such as a household" in result.output
    assert "1 households and the like written" in result.output
    (folder / "labels.csv").write_text("customer,time\n")
    labelled = ["--labels", folder / "labels.csv", "--out", folder / "out.parquet"]
    result = run(folder, "dataset", *COLUMNS, *labelled, folder / "purchases.csv")
    assert result.exit_code == 0, result.output
    assert "house_spent" in pl.read_parquet(folder / "out.parquet").columns


def test_a_mapping_file_says_the_same(folder: Path) -> None:
    (folder / "mapping.yaml").write_text(
        "sources:\n  - {files: [purchases.csv], type: purchase, customer: client, time: sold_at,"
        "\n     map: {amount: total}}\n"
    )
    result = run(folder, "backfill", "--check", "--mapping", folder / "mapping.yaml")
    assert "2 of 3 rows are good" in result.output
    result = run(folder, "backfill", "--check", "--mapping", folder / "mapping.yaml", "--customer", "client")
    assert result.exit_code == 2
    assert "expected neither FILES nor options about columns" in result.output


def test_dataset_joins_labels(folder: Path) -> None:
    out = folder / "out.parquet"
    words = ["--out", out, "--labels", folder / "labels.csv", *COLUMNS, folder / "purchases.csv"]
    result = run(folder, "dataset", *words)
    assert result.exit_code == 0, result.output
    assert "wrote 1 rows with 8 features each" in result.output
    assert pl.read_parquet(out)["spent"].to_list() == [10.0]


def test_dataset_reads_the_decision_log(folder: Path, server: Server) -> None:
    result = run(folder, "dataset", "--out", folder / "rows.parquet", "--redis", server.url)
    assert result.exit_code == 0, result.output
    assert "wrote 0 rows of 0 decisions" in result.output
    assert {"decision_id", "propensity", "reward"} < set(pl.read_parquet(folder / "rows.parquet").columns)


@pytest.mark.parametrize(
    ("command", "words", "expected"),
    [
        ("backfill", [], "expected FILES or --mapping"),
        ("backfill", ["purchases.csv"], "expected type, an event type, or type_column"),
        ("backfill", [*COLUMNS, "purchases.csv"], "expected --data or --redis, one of them"),
        ("backfill", [*COLUMNS, "--map", "amount", "purchases.csv"], "'amount', expected ATTRIBUTE=COLUMN"),
        ("backfill", [*COLUMNS, "--from", "soon", "purchases.csv"], "--from: 'soon', expected a time like"),
        ("backfill", [*COLUMNS, "--from", "2024-05-02", "--until", "2024-05-01", "--check", "purchases.csv"],
         "--from: expected a time before --until"),
        ("backfill", [*COLUMNS, "--redis", "unix:///nowhere.sock", "purchases.csv"], "the store is away"),
        ("backfill", [*COLUMNS, "--data", ".", "purchases.csv"], "holds other things"),
        ("backfill", [*COLUMNS, "--data", "new", "--store-binary", "none", "purchases.csv"], "none: no such program"),
        ("backfill", ["--from-log", "--data", "nowhere"], "there is none, or no engine has used it"),
        ("dataset", ["--out", "x.parquet", "--data", "nowhere"], "there is none, or no engine has used it"),
        ("dataset", ["--out", "x.parquet"], "expected --data or --redis, one of them"),
        ("backfill", [*COLUMNS, "--map", "amount=a", "--map", "amount=b", "purchases.csv"], "'amount' twice"),
        ("dataset", ["--out", "x.parquet", "purchases.csv"], "FILES goes with --labels"),
        ("dataset", ["--out", "x.parquet", "--label-time", "at"], "--label-time goes with --labels"),
        ("dataset", ["--out", "no/x.parquet", "--labels", "labels.csv", *COLUMNS, "purchases.csv"], "is no folder"),
    ],
)  # fmt: skip
def test_what_is_wrong_with_a_call_is_told(
    folder: Path, monkeypatch: pytest.MonkeyPatch, command: str, words: list[str], expected: str
) -> None:
    monkeypatch.chdir(folder)
    result = run(folder, command, *words)
    assert result.exit_code != 0
    assert expected in result.output
    assert not (folder / "new").exists()
