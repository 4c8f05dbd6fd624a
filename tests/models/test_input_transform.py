"""Values become small integers, the same everywhere, and bad values become "missing"."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from models import DIMENSION_MAX, STEPS, InputSpec, Transform

SPECS = [
    InputSpec("age", "linear", 20, 80),
    InputSpec("income", "log", 0, 1e6),
    InputSpec("job", "one_hot", categories=3),
    InputSpec("region", "one_hot", categories=2),
]
SOURCES = ["region", "unused", "age", "job", "income"]


def row(**values: float) -> np.ndarray:
    return np.array([[values.get(source, np.nan) for source in SOURCES]])


def x_of(**values: float) -> dict[str, int]:
    transform = Transform.compile(SPECS, SOURCES)
    return dict(zip(transform.names, transform.apply(row(**values))[0].tolist(), strict=True))


def test_names_and_dimension():
    transform = Transform.compile(SPECS, SOURCES)
    assert transform.names == ("bias", "age", "log(income)", "job[0]", "job[1]", "job[2]", "region[0]", "region[1]")
    assert transform.dimension == 8


def test_the_ends_and_the_middle_of_a_range():
    assert [x_of(age=age)["age"] for age in (20, 50, 80, -5, 1000)] == [-STEPS, 0, STEPS, -STEPS, STEPS]
    assert [x_of(income=income)["log(income)"] for income in (0, 1e6, -3, 1e300)] == [-STEPS, STEPS, -STEPS, STEPS]
    assert x_of(income=np.expm1(np.log1p(1e6) / 2))["log(income)"] == 0


def test_one_hot():
    assert [x_of(job=1, region=0)[name] for name in ("job[0]", "job[1]", "job[2]", "region[0]")] == [0, 127, 0, 127]


@pytest.mark.parametrize("odd", [np.nan, np.inf, -np.inf, -1.0, 3.0, 0.5, 1e300])
def test_an_index_that_is_no_category_is_missing(odd):
    assert {x_of(job=odd)[f"job[{category}]"] for category in range(3)} == {0}


@pytest.mark.parametrize("odd", [np.nan, np.inf, -np.inf])
def test_values_that_are_not_finite_are_missing(odd):
    assert x_of(age=odd, income=odd)["age"] == x_of(age=odd, income=odd)["log(income)"] == 0


@given(hnp.arrays(np.float64, (7, len(SOURCES))))
def test_any_values_give_bounded_vectors_row_by_row(values):
    transform = Transform.compile(SPECS, SOURCES)
    x = transform.apply(values)
    assert x.dtype == np.int8 and (x[:, 0] == STEPS).all() and (x >= -STEPS).all()
    assert (np.vstack([transform.apply(values[i : i + 1]) for i in range(7)]) == x).all()


def test_values_may_be_a_view():
    transform = Transform.compile(SPECS, SOURCES)
    wide = np.random.default_rng(0).uniform(0, 80, (6, 2 * len(SOURCES)))
    assert (transform.apply(wide[::2, ::2]) == transform.apply(wide[::2, ::2].copy())).all()


@given(st.floats(20, 80), st.floats(20, 80))
def test_a_linear_input_keeps_order_and_is_within_half_a_step(a, b):
    small, large = sorted((a, b))
    assert x_of(age=small)["age"] <= x_of(age=large)["age"]
    assert abs(x_of(age=a)["age"] - STEPS * ((a - 20) / 30 - 1)) <= 0.5 + 1e-9


def test_the_version_changes_with_meaning_and_only_with_meaning():
    version = Transform.compile(SPECS, SOURCES).version
    assert version == Transform.compile(SPECS, SOURCES[::-1]).version
    assert 0 <= version < 2**32
    others = [
        SPECS[::-1],
        SPECS[:-1],
        [InputSpec("age", "linear", 20, 81), *SPECS[1:]],
        [InputSpec("age", "log", 20, 80), *SPECS[1:]],
    ]
    assert len({version, *(Transform.compile(other, SOURCES).version for other in others)}) == 5


def test_the_version_is_the_same_on_every_machine():
    assert Transform.compile([InputSpec("age", "linear", 20, 80)], ["age"]).version == 0x94A00883


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: InputSpec("age", "linear", 1, 1), "must be below"),
        (lambda: InputSpec("age", "linear", 0, 1e-310), "must be below"),
        (lambda: InputSpec("age", "linear", -1e308, 1e308), "not finite"),
        (lambda: InputSpec("age", "log", 0, np.inf), "not finite"),
        (lambda: InputSpec("age", "one_hot"), "at least one category"),
        (lambda: InputSpec("age", "cubic"), "none of"),  # type: ignore[arg-type]
        (lambda: Transform.compile(SPECS, ["age"]), "reads no known source"),
        (lambda: Transform.compile(SPECS, ["age", "age"]), "twice"),
        (lambda: Transform.compile([SPECS[0], SPECS[0]], SOURCES), "same column 'age'"),
        (lambda: Transform.compile([InputSpec("age", "one_hot", categories=DIMENSION_MAX)], ["age"]), "DIMENSION_MAX"),
        (lambda: Transform.compile(SPECS, SOURCES).apply(np.zeros((2, 2))), "not (rows, 5)"),
    ],
)
def test_wrong_declarations_say_what_is_wrong(make, message):
    with pytest.raises(ValueError) as error:
        make()
    assert message in str(error.value)


AGE, JOB = InputSpec("age", "linear", 20, 80), InputSpec("job", "one_hot", categories=2)
INCOME = InputSpec("income", "log")


def test_crosses_are_products():
    crosses = [("job", "age"), ("age", "income")]
    transform = Transform.compile([AGE, JOB, INCOME], ["age", "job", "income"], crosses=crosses)
    assert transform.names[5:] == ("job[0]×age", "job[1]×age", "age×log(income)")
    assert [(part.kind, part.sources, part.first, part.width) for part in transform.parts[4:]] == [
        ("cross", ("job", "age"), 5, 2),
        ("cross", ("age", "income"), 7, 1),
    ]
    x = transform.apply(np.array([[65.0, 1.0, 0.0], [np.nan, 1.0, 1.0]]))
    assert x[0].tolist() == [127, 64, 0, 127, -127, 0, 64, -64]
    assert x[1].tolist() == [127, 0, 0, 127, 127, 0, 0, 0]


def test_waves_are_cosines_of_projections():
    transform = Transform.compile([AGE, JOB], ["age", "job"], waves=48)
    assert (transform.waves, transform.dimension, transform.parts[-1].sources) == (48, 52, ("age", "job"))
    ages = np.linspace(20, 80, 128)
    x = transform.apply(np.column_stack([ages, np.zeros(128)]))[:, -48:].astype(float)
    # A cosine of the age is a sum of a cosine and a sine: two columns, a constant, explain nothing less than a wave.
    for wave in range(48):
        spectrum = np.abs(np.fft.rfft(x[:, wave] - x[:, wave].mean(), 1024)) ** 2
        assert spectrum.sum() == 0 or spectrum.argmax() < 40, "smooth: no wave turns faster than its inputs do"
    # Nearby customers are alike, distant ones are not: the waves are a kernel.
    alike = (x @ x.T) / (48 * 127**2 / 2)
    assert alike[0, 1] == pytest.approx(1.0, abs=0.35) and alike[0, 0] > alike[0, 64]


def test_waves_are_the_same_on_every_machine():
    transform = Transform.compile([AGE, JOB], ["age", "job"], waves=5)
    assert transform.apply(np.array([[50.0, 0.0], [80.0, 1.0]])).tolist() == [
        [127, 0, 127, 0, -109, -72, 31, 21, -60],
        [127, 127, 0, 127, 127, 73, 125, 40, 28],
    ]
    assert transform.version == 0x76F9631D


def test_what_is_added_changes_the_version():
    plain = Transform.compile([AGE, JOB], ["age", "job"]).version
    crossed = Transform.compile([AGE, JOB], ["age", "job"], crosses=[("age", "job")]).version
    waved = [Transform.compile([AGE, JOB], ["age", "job"], waves=count).version for count in (1, 2)]
    assert len({plain, crossed, *waved}) == 4


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"crosses": [("age", "age")]}, "expected two different inputs"),
        ({"crosses": [("age", "wealth")]}, "cross of 'age' and 'wealth': expected two different inputs"),
        ({"waves": -1}, "-1 waves of 2 inputs"),
        ({"waves": 253}, "257 columns"),
    ],
)
def test_wrong_additions_say_what_is_wrong(more, message):
    with pytest.raises(ValueError, match=message):
        Transform.compile([AGE, JOB], ["age", "job"], **more)
