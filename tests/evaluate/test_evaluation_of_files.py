"""`opportune evaluate` on logs of others: small files with something wrong, and real ones where they are there."""

import gzip
import json
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from click.testing import CliRunner, Result

from engine.cli import main
from engine.errors import InvalidArgument
from engine.evaluate.filelog import CATEGORIES_MAX, foreign

DATA = Path(__file__).resolve().parents[3] / "shared" / "data"
HILLSTROM = DATA / "hillstrom" / "Kevin_Hillstrom_MineThatData_E-MailAnalytics_DataMiningChallenge_2008.03.20.csv.gz"
OPEN_BANDIT = DATA / "open-bandit-sample"


def run(log: Path, policy: str, *words: str) -> Result:
    return CliRunner().invoke(main, ["evaluate", "--log", str(log), "--policy", policy, *words], catch_exceptions=False)


def figures(tmp_path: Path, log: Path, policy: str, *words: str) -> dict[str, Any]:
    out = tmp_path / "out.json"
    result = run(log, policy, *words, "--json", str(out))
    assert result.exit_code in (0, 3), result.output
    found: dict[str, Any] = json.loads(out.read_text())
    assert (found["verdict"] == "refused") == (result.exit_code == 3)
    return found


# --- small files ----------------------------------------------------------------------------------------------------

ROWS = "who,did,got,chance,age,town\n" + "".join(
    f"c{n % 600},{did},{int(n % 3 == 0)},{chance},{20 + n % 50},{'ab'[n % 2]}\n"
    for n in range(1_200)
    for did, chance in [("left", 0.75) if n % 4 else ("right", 0.25)]
)
COLUMNS = ["--action", "did", "--reward", "got", "--propensity", "chance"]


@pytest.fixture
def csv(tmp_path: Path) -> Path:
    path = tmp_path / "log.csv"
    path.write_text(ROWS)
    return path


def test_csv_and_parquet_plain_and_packed_say_the_same(tmp_path: Path, csv: Path) -> None:
    packed, parquet = tmp_path / "log.csv.gz", tmp_path / "log.parquet"
    packed.write_bytes(gzip.compress(csv.read_bytes()))
    pl.read_csv(csv).write_parquet(parquet)
    words = [*COLUMNS, "--customer", "who", "--context", "age", "--context", "town"]
    found = [figures(tmp_path, path, "constant:right", *words) for path in (csv, packed, parquet)]
    assert found[0]["answer"]["value"] == pytest.approx(1 / 3, abs=0.02)
    assert found[0]["support"]["people"] == 600
    assert {json.dumps(each["estimates"]) for each in found} == {json.dumps(found[0]["estimates"])}


@pytest.mark.parametrize(
    ("column", "value", "expected"),
    [
        ("chance", "1e-300", "log.csv row 12: chance: '1e-300', expected a propensity of 1e-100 to 1"),
        ("chance", "0", "log.csv row 12: chance: '0', expected a propensity of 1e-100 to 1"),
        ("chance", "1.5", "log.csv row 12: chance: '1.5', expected a propensity"),
        ("chance", "nan", "log.csv row 12: chance: 'nan', expected a propensity"),
        ("chance", "", "log.csv row 12: chance: nothing, expected a propensity"),
        ("got", "much", "log.csv row 12: got: 'much', expected a number of -1e12 to 1e12"),
        ("got", "inf", "log.csv row 12: got: 'inf', expected a number of -1e12 to 1e12"),
        ("did", "", "log.csv row 12: did: nothing, expected a value"),
        ("who", "", "log.csv row 12: who: nothing, expected a value"),
    ],
)
def test_what_is_wrong_is_told_by_row_and_column(csv: Path, column: str, value: str, expected: str) -> None:
    lines = [line.split(",") for line in ROWS.splitlines()]
    lines[11][lines[0].index(column)] = value
    csv.write_text("\n".join(",".join(line) for line in lines) + "\n")
    result = run(csv, "uniform", *COLUMNS, "--customer", "who")
    assert result.exit_code == 1
    assert expected in result.output


@pytest.mark.parametrize("option", ["--action", "--reward", "--propensity", "--customer", "--context"])
def test_a_column_that_is_not_there_is_told_with_those_that_are(csv: Path, option: str) -> None:
    words = dict(zip(COLUMNS[::2], COLUMNS[1::2], strict=True)) | {option: "missing"}
    result = run(csv, "uniform", *(word for pair in words.items() for word in pair))
    assert result.exit_code == 1
    assert f"has no column 'missing' ({option}), expected one of: who, did, got" in result.output


def test_files_that_are_none_are_told(tmp_path: Path, csv: Path) -> None:
    for name, content, expected in (
        ("empty.csv", b"did,got,chance\n", "has no rows"),
        ("none.csv", b"", "cannot be read as CSV"),
        ("wide.csv", b"did,got,chance\na,1,1,7,8\n", "cannot be read as CSV"),
        ("false.parquet", b"PAR0", "cannot be read as Parquet"),
    ):
        (tmp_path / name).write_bytes(content)
        result = run(tmp_path / name, "uniform", *COLUMNS)
        assert result.exit_code == 1, name
        assert expected in result.output
    result = run(csv, "uniform")
    assert "not a file of `opportune dataset`" in result.output


@pytest.mark.parametrize(("given", "expected"), [("1/2", 0.5), ("0.5", 0.5), ("1", 1.0)])
def test_one_propensity_for_all_rows(csv: Path, given: str, expected: float) -> None:
    log = foreign(csv, "did", "got", given, None, [])
    assert set(log.propensities.tolist()) == {expected}


@pytest.mark.parametrize("given", ["0", "3/2", "-1", "1e400", "1e999999999"])
def test_one_propensity_that_is_none(csv: Path, given: str) -> None:
    with pytest.raises(InvalidArgument, match="a propensity of 1e-100 to 1"):
        foreign(csv, "did", "got", given, None, [])


def test_context_becomes_columns_of_numbers_and_of_common_values(tmp_path: Path) -> None:
    count = 1_000
    frame = pl.DataFrame(
        {
            "did": ["a"] * count,
            "got": np.arange(count) % 2 == 0,
            "chance": [1.0] * count,
            "number": np.arange(count),
            "many": [f"v{number % 50:02}" for number in range(count)],
            "same": ["x"] * count,
            "constant": [3.0] * count,
            "gaps": [None if number % 2 else float(number) for number in range(count)],
        }
    )
    frame.write_parquet(tmp_path / "log.parquet")
    columns = ["number", "many", "same", "constant", "gaps"]
    log = foreign(tmp_path / "log.parquet", "did", "got", "chance", None, columns)
    assert log.x.shape == (count, 1 + 1 + CATEGORIES_MAX + 1 + 1)
    assert log.rewards.sum() == count / 2
    assert (log.x[0, 1], log.x[-1, 1]) == (-127, 127)
    assert (log.x[1::2, -1] == 0).all()
    with pytest.raises(InvalidArgument, match="at most 256 columns"):
        for extra in range(10):
            frame = frame.with_columns(pl.col("many").alias(f"more{extra}"))
        frame.write_parquet(tmp_path / "log.parquet")
        foreign(
            tmp_path / "log.parquet", "did", "got", "chance", None, [name for name in frame.columns if "m" in name]
        )


def test_numbers_of_which_no_range_can_be_made_are_told(csv: Path) -> None:
    csv.write_text(csv.read_text().replace(",20,", ",1.7e308,").replace(",21,", ",-1.7e308,"))
    result = run(csv, "uniform", *COLUMNS, "--context", "age")
    assert (result.exit_code, "column age (--context)" in result.output) == (1, True), result.output


def test_a_log_whose_propensities_are_not_its_own_is_refused(tmp_path: Path, csv: Path) -> None:
    words = ["--action", "did", "--reward", "got", "--propensity", "1/2"]
    found = figures(tmp_path, csv, "constant:right", *words)
    assert [refusal["code"] for refusal in found["refusals"]] == ["weight_mean"]


# --- real logs ------------------------------------------------------------------------------------------------------


@pytest.mark.skipif(not HILLSTROM.exists(), reason="the data of Hillstrom's e-mail test is not in ../shared/data")
@pytest.mark.parametrize(
    ("arm", "published", "people"),
    [("Mens E-Mail", 0.1828, 21_307), ("Womens E-Mail", 0.1514, 21_387), ("No E-Mail", 0.1062, 21_306)],
)
def test_hillstroms_arms_have_their_published_visits(tmp_path: Path, arm: str, published: float, people: int) -> None:
    words = ["--action", "segment", "--reward", "visit", "--propensity", "1/3"]
    words += [word for name in ("recency", "history", "mens", "womens", "newbie") for word in ("--context", name)]
    found = figures(tmp_path, HILLSTROM, f"constant:{arm}", *words)
    each = {estimate["name"]: estimate for estimate in found["estimates"]}
    assert each["SNIPS"]["value"] == pytest.approx(published, abs=5e-5)
    assert found["support"]["effective_rows"] == pytest.approx(people)
    for name in ("IPS", "SNIPS", "DR"):
        assert each[name]["low"] < published < each[name]["high"]
    # A rate of so many people, as a textbook has it.
    half = 1.96 * (published * (1 - published) / people) ** 0.5
    assert each["SNIPS"]["high"] - each["SNIPS"]["low"] == pytest.approx(2 * half, rel=0.01)
    assert each["DR"]["high"] - each["DR"]["low"] <= each["IPS"]["high"] - each["IPS"]["low"]


@pytest.mark.skipif(not HILLSTROM.exists(), reason="the data of Hillstrom's e-mail test is not in ../shared/data")
def test_on_hillstrom_personalising_is_no_better_than_the_best_arm(tmp_path: Path) -> None:
    """What is known of this test: a policy picked in-sample would claim more."""
    words = ["--action", "segment", "--reward", "visit", "--propensity", "1/3"]
    words += [word for name in ("recency", "history", "mens", "womens", "newbie") for word in ("--context", name)]
    found = figures(tmp_path, HILLSTROM, "greedy", *words)
    assert found["answer"]["low"] < 0.1828 < found["answer"]["high"]
    assert found["answer"]["lift_low"] > 0


@pytest.mark.skipif(not OPEN_BANDIT.exists(), reason="the sample of the Open Bandit Dataset is not in ../shared/data")
@pytest.mark.parametrize("campaign", ["men/men", "women/women", "all/all"])
def test_on_open_bandit_the_value_of_uniform_is_found_from_thompsons_log(tmp_path: Path, campaign: str) -> None:
    """Two logs of one week: that of Thompson sampling says what the uniform one earned, or declines to."""
    name = campaign.replace("/", "_")
    words = ["--action", "item_id", "--reward", "click", "--propensity", "propensity_score", "--context", "position"]
    truth = figures(tmp_path, OPEN_BANDIT / f"random_{name}.csv.gz", "logged", *words)
    assert truth["answer"]["value"] == pytest.approx(truth["logged"]["value"])
    found = figures(tmp_path, OPEN_BANDIT / f"bts_{name}.csv.gz", "uniform", *words)
    assert found["support"]["rows"] == 10_000
    assert found["support"]["weight_max"] > 20
    if found["answer"] is None:
        assert found["refusals"]
        return
    # Both are uncertain: the intervals have to meet.
    assert found["answer"]["low"] < truth["logged"]["high"]
    assert truth["logged"]["low"] < found["answer"]["high"]


@pytest.mark.skipif(not OPEN_BANDIT.exists(), reason="the sample of the Open Bandit Dataset is not in ../shared/data")
def test_on_open_bandit_one_item_among_eighty_is_refused(tmp_path: Path) -> None:
    words = ["--action", "item_id", "--reward", "click", "--propensity", "propensity_score"]
    found = figures(tmp_path, OPEN_BANDIT / "bts_all_all.csv.gz", "constant:3", *words)
    assert found["answer"] is None
    assert "effective_rewards" in {refusal["code"] for refusal in found["refusals"]}
