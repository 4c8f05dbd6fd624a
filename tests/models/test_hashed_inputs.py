"""Texts of an open vocabulary: a number of columns, whoever comes, the same on every machine."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from models import (
    HASHED_COLUMNS_MAX,
    STEPS,
    InputSpec,
    Policy,
    PosteriorOptions,
    Statistics,
    Transform,
    fit,
    pack_offer,
)

CITY = InputSpec("city", "hashed", categories=8)
SIGNED = InputSpec("city", "hashed", categories=8, signed=True)
HASHES = st.integers(0, 2**48 - 1)


def x_of(spec: InputSpec, value: float) -> list[int]:
    return Transform.compile([spec], ["city"]).apply(np.array([[value]]))[0, 1:].tolist()


@given(HASHES)
def test_the_lowest_bits_name_the_column_and_the_highest_the_sign(value: int) -> None:
    at = value % 8
    assert x_of(CITY, value) == [STEPS if column == at else 0 for column in range(8)]
    sign = -1 if value >= 2**47 else 1
    assert x_of(SIGNED, value) == [sign * STEPS if column == at else 0 for column in range(8)]


@pytest.mark.parametrize("odd", [np.nan, np.inf, -np.inf, -1.0, 0.5, 2.0**48, 1e300])
def test_what_is_no_hash_is_missing(odd: float) -> None:
    assert x_of(CITY, odd) == x_of(SIGNED, odd) == [0] * 8


@pytest.mark.parametrize("columns", [0, 1, 3, 12, 2 * HASHED_COLUMNS_MAX, -8])
def test_columns_are_a_power_of_two_within_a_limit(columns: int) -> None:
    with pytest.raises(ValueError, match="power of two from 2 to HASHED_COLUMNS_MAX=128, not"):
        InputSpec("city", "hashed", categories=columns)


@given(st.lists(st.tuples(HASHES, st.floats(20, 80)), min_size=1, max_size=9))
def test_it_crosses_and_waves_like_categories_that_were_listed(rows: list[tuple[int, float]]) -> None:
    """With the columns told beforehand, one_hot fills the very same ones."""
    sources, age = ["city", "age"], InputSpec("age", "linear", 20, 80)
    hashed = Transform.compile([CITY, age], sources, crosses=[("city", "age")])
    listed = Transform.compile([InputSpec("city", "one_hot", categories=8), age], sources, crosses=[("city", "age")])
    values = np.array([(float(city), years) for city, years in rows])
    at_columns = values % [8, np.inf]
    assert hashed.apply(values).tolist() == listed.apply(at_columns).tolist()
    assert hashed.restore(hashed.apply(values))[:, 0].tolist() == (values[:, 0] % 8).tolist()
    assert [name.replace("#", "") for name in hashed.names] == list(listed.names)
    waving = Transform.compile([CITY, age], sources, waves=16)
    assert (waving.apply(values)[:, -16:] != 0).any()


def test_the_version_says_how_it_is_hashed() -> None:
    specs = [CITY, SIGNED, InputSpec("city", "hashed", categories=16), InputSpec("city", "one_hot", categories=8)]
    assert len({Transform.compile([spec], ["city"]).version for spec in specs}) == 4
    assert Transform.compile([CITY], ["city"]).version == 0xaaa91d73, "lessons that were learnt are worth nothing else"


@pytest.mark.parametrize("signed", [False, True])
def test_what_cities_have_apart_is_learnt(signed: bool) -> None:
    """Forty cities of two kinds in 64 columns: the estimates follow the kinds, but for those that share a column."""
    rng = np.random.default_rng(1)
    hashes = rng.integers(0, 2**48, 40).astype(np.float64)
    rates = np.where(np.arange(40) % 2, 0.6, 0.1)
    transform = Transform.compile([InputSpec("city", "hashed", categories=64, signed=signed)], ["city"])
    cities = rng.integers(0, 40, 8_000)
    x = transform.apply(hashes[cities, None])
    targets = (rng.random(8_000) < rates[cities]).astype(int) * 100
    statistics = Statistics(transform.dimension, transform.version)
    statistics.learn(["card"] * 8_000, [0] * 8_000, x, targets.tolist(), [1] * 8_000)
    options = PosteriorOptions()
    beliefs = fit(statistics, ["card"], 0, options)
    policy = Policy.empty(["card"], transform.dimension, options, transform.version)
    policy = policy.replaced({"card": pack_offer(beliefs["card"])}, 1)
    mean, _ = policy.score(transform.apply(hashes[:, None]))
    alone = np.bincount((hashes % 64).astype(int), minlength=64)[(hashes % 64).astype(int)] == 1
    assert alone.sum() > 15
    assert np.abs(mean[alone, 0] - rates[alone]).max() < 0.12
