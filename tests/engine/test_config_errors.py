"""A wrong configuration is refused whole: each problem with its file, its line and what was expected."""

import time
from typing import Any

import pytest

from engine import config
from engine.catalogue import Catalogue
from engine.config import load, parse, read, version_of
from engine.errors import ConfigError
from engine.limits import CONFIG_BYTES_MAX
from engine.versions_check import compiled
from tests.small_engine import CONFIG


def problems(text: bytes) -> list[str]:
    """What is told about a configuration, a line a problem, when it is read and compiled like at the start."""
    with pytest.raises(ConfigError) as refusal:
        Catalogue.compile(parse(text, "shop.yaml"), version_of(text), text, "shop.yaml")
    return str(refusal.value).splitlines()


@pytest.mark.parametrize(
    ("feature", "told"),
    [
        (b"sum", "sum holds values up to 9.0072e+09 at a resolution of 1e-06, and amount has a range up to 1e+11: "
         "expected resolution: 0.0001"),
        (b"decayed, half_life: 3d", "decayed holds values up to 3.51844e+07 at a resolution of 1e-06, and amount has "
         "a range up to 1e+11: expected resolution: 0.01"),
        (b"mean, resolution: 0.000_01", "mean holds values up to 9.0072e+10 at a resolution of 1e-05, and amount has "
         "a range up to 1e+11: expected resolution: 0.0001"),
        (b"sum, resolution: 0.01", ""),
        (b"max", ""),
    ],
)  # fmt: skip
def test_a_range_that_a_sum_cannot_hold_is_refused_in_a_new_configuration(feature: bytes, told: str) -> None:
    line = b"  - {name: most, event: purchase, attribute: amount, function: " + feature + b"}\n"
    text = CONFIG.replace(b"range: [0, 100000]", b"range: [-100000000000, 0]").replace(
        b"features:\n", b"features:\n" + line
    )
    config, found = read(text, "shop.yaml", new=True)
    at = line_with(text, "name: most")
    mine = [problem for problem in found if "features[0]" in problem]
    assert mine == ([f"shop.yaml:{at}: features[0].resolution: {told}"] if told else [])
    assert config == parse(text), "what was in force is still read, and the state that came of it"


def line_with(text: bytes, part: str) -> int:
    [at] = [number for number, line in enumerate(text.decode().splitlines(), 1) if part in line]
    return at


def test_a_text_is_loaded_once_and_told_by_every_name(monkeypatch: pytest.MonkeyPatch) -> None:
    text = CONFIG.replace(b"value: 40", b"value: forty")
    text = text.replace(b"offers:\n", b"groups: {basis: {limt: 3}}\noffers:\n", 1)
    fine = CONFIG + b"# another text\n"
    first, again = read(fine, "one.yaml"), read(fine, "two.yaml")
    assert first == again == (parse(fine), [])
    told = [problem_lines(text, name) for name in ("one.yaml", "two.yaml", "one.yaml")]
    assert told[0] == told[2] != told[1]
    assert [line.replace("two.yaml", "one.yaml") for line in told[1]] == told[0]
    loads: list[int] = []
    real = config._reader

    def counted() -> Any:
        loads.append(1)
        return real()

    monkeypatch.setattr(config, "_reader", counted)
    text += b"# and one more\n"
    for name in ("one.yaml", "two.yaml"):
        problem_lines(text, name)
    assert loads == [1]


def problem_lines(text: bytes, name: str) -> list[str]:
    with pytest.raises(ConfigError) as refusal:
        parse(text, name)
    return str(refusal.value).splitlines()


OFFER = b"  - {id: extra, value: 1, treatments: [{text: x}]}\nfallback: [card]"


@pytest.mark.parametrize(
    ("old", "new", "line", "told"),
    [
        # one field
        (b"value: 40", b"value: forty", "value: forty", "offers[0].value: expected a valid number"),
        (b"value: 40", b"value: .nan", "value: .nan", "offers[0].value: expected a finite number"),
        (b"value: 40", b"value: 1e13", "value: 1e13", "offers[0].value: expected less than or equal to 1"),
        (b"value: 40", b"value: 40\n    colour: red", "colour", "offers[0].colour: not a setting that exists here"),
        (b"opportune: 1", b"opportune: 2", "opportune: 2", "opportune: expected 1, got 2"),
        (b"limit: 3", b"limit: 31", "limit: 31", "limit: expected less than or equal to 30, got 31"),
        (b"window: 3d", b"window: 3 days", "window: 3 days", "offers[1].window: duration '3 days': expected a whole"),
        (b"window: 3d", b"window: 0s", "window: 0s", "expected more than nothing"),
        (b"window: 3d", b"window: -5", "window: -5", "offers[1].window: expected a duration like 1d, got -5"),
        (b"window: 3d", b"window: 86400", "window: 86400", "offers[1].window: expected a duration like 1d, got 86400"),
        (b"type: number, range: [0, 600]", b"type: number, range: [600, 0]", "name: minutes",
         "context[1]: range [600.0, 0.0]: expected [low, high] with low < high"),
        (b"range: [0, 100000]", b"range: [5, 5]", "amount:", "amount: range [5.0, 5.0]: expected [low, high] with low"),
        (b"language: cs", b"language: x y z", "language: x y z", "language: expected a tag like en or pt-BR"),
        (b"window: 3d", b"window: 999999999999d", "window: 999999999999d", "less than or equal to 253402300799999"),
        (b"value: 40", b"value: 40\n    ends_ms: 253402300800000", "ends_ms", "offers[0].ends_ms: expected less than"),
        (b"value: 40", b"value: 40\n    starts_ms: -1", "starts_ms", "offers[0].starts_ms: expected greater than or"),
        (b"kind: service", b"kind: gift", "kind: gift", "expected 'sale', 'service', 'retention', 'question' or"),
        (b"contact_cost: 1", b"contact_cost: -1", "contact_cost: -1", "expected greater than or equal to 0"),
        (b"name: spent_30d", b"name: Spent", "name: Spent", "features[0].name: expected a name of a-z"),
        (b"name: minutes,", b"name: for,", "name: for,", "context[1].name: 'for' is a word of the rule language"),
        (b"range: [0, 60]", b"range: [60, 0]", "range: [60, 0]", "low < high"),
        (b"type: flag}\nevents", b"type: flag, values: [x]}\nevents", "name: vip", "values: only a text has them"),
        (b"type: number, range: [0, 600]", b"type: text, range: [0, 600]", "name: minutes", "range: only a number"),
        (b"values: [pay, borrow, leave]", b"values: [pay, pay]", "name: intent", "values: expected each one once"),
        (b"window: 3d", b"window: 3d\n    outcomes: {accepted: {window: 3d}}", "outcomes",
         "outcomes.accepted.window: the offer has a window, too"),
        (b"value: 40", b"value: 40\n    outcomes: {fulfilled: {window: 6d}}", "outcomes",
         "outcomes.fulfilled.window: expected no less than the 604800000 ms"),
        (b"value: 40", b"value: 40\n    outcomes: {clicked: {reward: 2}}", "outcomes", "clicked.reward: expected"),
        (b"value: 40", b"value: 40\n    outcomes: {fulfilled: {reward: 0.5}}", "outcomes", "expected presented ≤"),
        (b"value: 40", b"value: 40\n    rewards: [0, 30]", "rewards", "with low ≤ 0 and the value, 40, from 0.000001"),
        (b"value: 40", b"value: 1e-7\n    rewards: [-1, 1]", "rewards", "and the value, 1e-07, from 0.000001 to high"),
        (b"value: 40", b"value: 40\n    rewards: [1, 50]", "rewards", "with low ≤ 0 and the value, 40, from 0.000001"),
        (b"offers:\n", b"objectives: {revenue: .inf}\noffers:\n", "revenue", "objectives.revenue: expected a finite"),
        # several fields
        (b"fallback: [card]", OFFER.replace(b"extra", b"card"), "id: card, value: 1", "offer 'card' is already there"),
        (b"{id: web,", b"{id: branch,", "footer", "channel 'branch' is already there as channels[0]"),
        (b"type: complaint", b"type: purchase", "type: purchase", "event type 'purchase' is already there"),
        (b"[hero, footer]", b"[hero, hero]", "hero, hero", "channels[1].placements: expected each placement once"),
        (b"name: purchases_7d", b"name: spent_30d", "function: count, window: 7d", "already taken by features[0]"),
        (b"name: minutes", b"name: spent_30d", "[0, 600]", "'spent_30d' is already taken by features[0]"),
        (b"channels: [branch]", b"channels: [moon]", "channels: [moon]", "no channel 'moon'; there are branch, web"),
        (b"value: 40", b"value: 40\n    context_weight: {moon: 2}", "moon: 2", "no channel 'moon'"),
        (b"{text: Karta, language: cs}", b"{text: Karta, channel: moon}", "moon", "no channel 'moon'"),
        (b"fallback: [card]", b"fallback: [card, moon]", "fallback", "fallback[1]: no offer 'moon'"),
        (b"value: 40", b"value: 40\n    ends_ms: 0", "ends_ms", "offers[0].ends_ms: expected a time after starts_ms"),
        (b"event: complaint", b"event: praise", "event: praise", "features[2].event: no event type 'praise'"),
        (b"attribute: amount", b"attribute: total", "attribute: total", "event 'purchase' has no attribute 'total'"),
        (b"window: 90d", b"window: 90d, where: {tone: bad}", "tone", "event 'complaint' has no attribute 'tone'"),
        (b"function: sum, ", b"function: count, ", "name: spent_30d", "count takes no attribute"),
        (b"function: last", b"function: mean", "name: last_category", "a text can only be remembered or told apart"),
        (b"window: 30d", b"window: 30d, tile: 1h", "tile: 1h", "tiles: expected at most 256"),
        (b"attribute: category, input: {kind: one_hot}", b"attribute: category, input: {kind: log}", "kind: log}",
         "expected kind one_hot or hashed for a text"),
        (b"category: {type: text, values: [food, travel]}", b"category: {type: text}", "name: last_category",
         "a text attribute needs its values declared"),
        (b"name: vip, type: flag", b"name: vip, type: flag, default: 3", "name: vip", "expected a flag, got 3"),
        (b"values: [pay, borrow, leave]", b"values: [pay], default: x", "name: intent", "expected one of pay"),
        # identities and entities
        (b"events:\n", b"identities: [{kind: cookie},\n  {kind: cookie}]\nevents:\n", "  {kind: cookie}]",
         "identity kind 'cookie' is already there as identities[0]"),
        (b"events:\n", b"identities: [{kind: a=b}]\nevents:\n", "kind: a=b", "identities[0].kind: String should match"),
        (b"events:\n", b"entities: [{kind: household, attribute: home}]\nevents:\n", "attribute: home",
         "entities[0].attribute: no event type has a text attribute 'home'"),
        (b"events:\n", b"entities: [{kind: household, attribute: amount}]\nevents:\n", "attribute: amount",
         "entities[0].attribute: no event type has a text attribute 'amount'"),
        (b"events:\n", b"entities: [{kind: a, attribute: category},\n  {kind: b, attribute: category}]\nevents:\n",
         "  {kind: b", "entities[1].attribute: 'category' is already that of entities[0]"),
        # rules
        (b"spent_30d > 100.0", b"spent > 100.0", "eligibility", "offers.1.eligibility.1: no feature or fact is called"),
        (b"spent_30d > 100.0", b"1 / 0 == 1", "eligibility", "divides by zero, whatever the customer"),
        (b"spent_30d > 100.0", b"intent == 'pya'", "eligibility", "intent is never 'pya'; the nearest is pay"),
        (b"spent_30d > 100.0", b"'tour' != last_category || vip", "eligibility", "last_category is never 'tour'"),
        (b"spent_30d > 100.0", b"channel in ['web', 'sms']", "eligibility", "channel is never 'sms'; there are branch"),
        (b"spent_30d > 100.0", b"spent_30d >", "eligibility", "not an expression of CEL"),
        (b"spent_30d > 100.0", b"spent_30d", "eligibility", "expected a rule that is true or false"),
    ],
)  # fmt: skip
def test_a_mistake_is_told_where_it_is(old: bytes, new: bytes, line: str, told: str) -> None:
    assert CONFIG.count(old) == 1 or old in (b"type: complaint", b"window: 3d"), "the mistake is in one place"
    text = CONFIG.replace(old, new, 1)
    found = problems(text)
    matching = [problem for problem in found if told in problem]
    assert len(matching) == 1, found
    place, number, _ = matching[0].split(":", 2)
    assert place == "shop.yaml"
    assert line in text.decode().splitlines()[int(number) - 1]


COMPLAINT = b"  - type: complaint\n"


def on_timeline(settings: bytes) -> bytes:
    """The configuration with complaints on the timeline like this."""
    told = b"{topic: {type: text}, state: {type: text, values: [open, closed]}}"
    return CONFIG.replace(COMPLAINT, COMPLAINT + b"    attributes: " + told + b"\n    timeline: " + settings + b"\n")


@pytest.mark.parametrize(
    "settings",
    [
        b"true",
        b"false",
        b"{}",
        b"{text: plain}",
        b"{kind: complaint, same: [topic], closes: {state: closed}}",
        b"{kind: complaint, case: topic, closes: true, channel: '{topic}', text: '{state}{topic}', author: topic}",
    ],
)
def test_ways_to_stand_on_the_timeline(settings: bytes) -> None:
    text = on_timeline(settings)
    keeper = Catalogue.compile(parse(text), version_of(text), text).keeper
    assert ("complaint" in keeper.shapes) == (settings != b"false")


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        (b"yes please", "events[1].timeline: expected a mapping, got 'yes please'"),
        (b"{kind: complaint, case: topic, closes: 5}", "timeline.closes: expected true or false or a mapping"),
        (b"{kind: complaint, case: topic, closes: {state: [1]}}", "timeline.closes.state: expected a valid number or"),
        (b"{kind: quarrel}", "events[1].timeline.kind: expected 'contact', 'complaint', 'note', 'use' or"),
        (b"{kind: decision}", "events[1].timeline.kind: expected"),
        (b"{colour: red}", "events[1].timeline.colour: not a setting that exists here"),
        (b"{text: 'about {tone}'}", "events[1].timeline.text: event 'complaint' has no attribute 'tone'"),
        (b"{channel: '{tone}'}", "events[1].timeline.channel: event 'complaint' has no attribute 'tone'"),
        (b"{author: tone}", "events[1].timeline.author: event 'complaint' has no attribute 'tone'"),
        (b"{text: 'about {topic:9999}'}", "events[1].timeline.text: '{' stands alone: expected attributes as {name}"),
        (b"{text: 'about {topic!r}'}", "'{' stands alone"),
        (b"{text: 'about topic}'}", "'}' stands alone"),
        (b"{kind: complaint}", "events[1].timeline: complaints need case or same"),
        (b"{kind: complaint, case: tone}", "events[1].timeline.case: event 'complaint' has no attribute 'tone'"),
        (b"{kind: complaint, same: [topic, tone]}", "events[1].timeline.same[1]: event 'complaint' has no attribute"),
        (b"{kind: complaint, same: [topic], closes: {tone: x}}", "events[1].timeline.closes.tone: event 'complaint'"),
        (b"{kind: complaint, same: [topic], closes: {}}", "closes"),
        (b"{kind: complaint, same: [topic], within: soon}", "events[1].timeline.within: duration 'soon'"),
        (b"{kind: note, same: [topic]}", "events[1].timeline.same: only complaints have it: expected kind: complaint"),
        (b"{closes: true}", "events[1].timeline.closes: only complaints have it"),
    ],
)
def test_a_mistake_about_the_timeline_is_told(settings: bytes, told: str) -> None:
    found = problems(on_timeline(settings))
    assert any(told in problem for problem in found), found
    lines = on_timeline(settings).decode().splitlines()
    assert all("timeline" in lines[int(problem.split(":")[1]) - 1] for problem in found)


def test_too_many_attributes_on_the_timeline_are_told() -> None:
    names = b", ".join(b"a%d: {type: number}" % n for n in range(17))
    text = CONFIG.replace(COMPLAINT, COMPLAINT + b"    attributes: {" + names + b"}\n    timeline: true\n")
    [problem] = problems(text)
    assert problem.endswith("events[1].timeline: 17 attributes, at most 16 are kept; name those to be kept in text")
    assert parse(text.replace(b"timeline: true", b"timeline: {text: '{a3}'}")).events[1].kept() == ("a3",)


@pytest.mark.parametrize(
    ("segments", "told"),
    [
        (b"[{name: rich, when: 'spent_30d >'}]", "segments.0.when: not an expression of CEL"),
        (b"[{name: rich, when: 'vip'}]", "segments.0.when: no feature or fact is called 'vip'"),
        (b"[{name: rich, when: spent_30d}]", "segments.0.when: expected a rule that is true or false"),
        (b"[{name: spent_30d, when: 'spent_30d > 1.0'}]", "segments[0].name: the name 'spent_30d' is already taken"),
        (b"[{name: Rich, when: 'spent_30d > 1.0'}]", "segments[0].name: expected a name of a-z"),
        (b"[{name: rich}]", "segments[0].when: Field required"),
        (b"[{name: a, when: 'spent_30d > 1.0'}, {name: a, when: 'spent_30d > 2.0'}]", "segments[1].name: the name 'a'"),
    ],
)
def test_a_mistake_about_a_segment_is_told(segments: bytes, told: str) -> None:
    [problem] = problems(CONFIG.replace(b"offers:", b"segments: " + segments + b"\noffers:"))
    assert told in problem


FEATURE = "  - {name: tried, event: purchase, %s}\noffers:"


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ("function: sum, value: amount * 2", "value: compares or combines values of different types; a number is a"),
        ("function: sum, value: amount * 2", "write 2.0 for 2"),
        ("function: sum, value: amount + hour", "a number is a double: write double(hour) for hour"),
        ("function: sum, value: amount % 2.0", "write int(x) % 2 for x % 2.0"),
        ("function: sum, value: \"abroad && amount > 'a' ? 1.0 : 0.0\"", "value: compares or combines values of"),
        ("function: sum, value: category", "value: expected an expression that gives a number, this one gives 'food'"),
        ("function: sum, value: \"category == 'travel' ? 'x' : 1.0\"", "expected an expression that gives a number"),
        ("function: sum, value: '1 / 0'", "value: divides by zero, whatever the event"),
        ("function: count, where: 1.0 / 0.0 > 1.0", "where: divides by zero, whatever the event"),
        ("function: count, where: amount / 0.0 > 1.0", "where: divides by zero, whatever the event"),
        ("function: count, where: amount / (amount - amount) > 1.0", "where: divides by zero, whatever the event"),
        ("function: count, where: amount", "where: expected an expression that gives a flag, this one gives 0.0"),
        ("function: count, where: \"amount > 'a'\"", "where: compares or combines values of different types"),
        ("function: count, where: {amount: '1'}", "where.amount: 'amount' is a number, which never equals '1'"),
        ("function: count, where: {abroad: 1}", "where.abroad: 'abroad' is a flag, which never equals 1"),
        ("function: count, where: {category: foot}", "where.category: expected one of the declared values of"),
        ("function: count, where: {category: foot}", "got 'foot'; there are food, travel; the nearest is food"),
        ("function: count, by: {attribute: category, values: [food, rent]}", "by.values[1]: expected one of the"),
        ("function: count, by: {attribute: amount, values: ['1']}", "'amount' is a number, which never equals '1'"),
        ("function: last, attribute: category, default: foot", "expected one of the declared values, got 'foot'"),
        ("function: mean, attribute: amount, default: much", "default: expected a number, got 'much'"),
        ("function: sum, value: amount +", "value: not an expression of CEL: it ends too early"),
        ("function: count, where: amount > 1.0)", "where: not an expression of CEL: extraneous input ')'"),
    ],
)
def test_a_feature_that_could_take_no_event_is_told(settings: str, told: str) -> None:
    text = CONFIG.replace(b"offers:", (FEATURE % settings).encode(), 1)
    found = [problem for problem in problems(text) if told in problem]
    assert len(found) == 1, problems(text)
    assert found[0].startswith(f"shop.yaml:{line_with(text, 'name: tried')}: features[4].")


HIDDEN = "in an expression is that of the event's time, and 'purchase' has an attribute"


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ("function: count, where: 'hour >= 100.0'", f"where: 'hour' {HIDDEN} 'hour', too: expected another name for"),
        ("function: sum, value: amount + weekday", f"value: 'weekday' {HIDDEN} 'weekday', too"),
        ("function: ratio, numerator: last_category, denominator: spent_30d", "numerator: 'last_category' is a text"),
        ("function: ratio, numerator: spent_30d, denominator: last_category", "denominator: 'last_category' is a text"),
        ("function: count, default: 7", "default: count is 0 without events: expected no default, got 7"),
        ("function: decayed, half_life: 7d, default: -1", "default: decayed is 0 without events"),
        ("function: count, where: {hour: 200}", ""),
        ("function: count, where: \"category == 'hour'\"", ""),
        ("function: sum, attribute: amount, default: 0", ""),
        ("function: mean, attribute: amount, default: 7", ""),
        ("function: ratio, numerator: spent_30d, denominator: purchases_7d, default: 7", ""),
        ("function: last, attribute: category, default: food", ""),
    ],
)
def test_what_would_say_nothing_is_refused_in_a_new_configuration(settings: str, told: str) -> None:
    """And read of one that was in force: its state came of it."""
    event = "" if "ratio" in settings else "event: purchase, "
    clock = b"hour: {type: number}\n      weekday: {type: number}\n      category: {type: text"
    text = CONFIG.replace(b"category: {type: text", clock, 1)
    text = text.replace(b"offers:", f"  - {{name: tried, {event}{settings}}}\noffers:".encode(), 1)
    config, found = read(text, "shop.yaml", new=True)
    at = line_with(text, "name: tried")
    assert [problem[: problem.index("]") + 2] for problem in found] == [f"shop.yaml:{at}: features[4]."] * bool(told)
    assert all(told in problem for problem in found)
    assert config == parse(text)


def test_a_text_may_be_one_of_its_values_by_default() -> None:
    settings = "function: last, attribute: category, default: travel"
    config = parse(CONFIG.replace(b"offers:", (FEATURE % settings).encode(), 1))
    catalogue = Catalogue.compile(config, "v", b"")
    assert catalogue.layout.values(None, 0)["tried"] == "travel"


@pytest.mark.parametrize(
    "settings",
    [
        "function: sum, value: amount * 2.0 + double(hour) - double(int(amount) % 7)",
        "function: mean, value: amount / (amount - 1.0)",
        "function: max, value: 100 / int(amount)",
        "function: sum, value: abroad",
        "function: distinct, value: \"category + '/' + string(hour)\"",
        "function: count, where: \"amount > 100 && category.startsWith('f') || !abroad && weekday >= 5\"",
        "function: count, where: {amount: 1, abroad: true, category: food}",
    ],
)
def test_a_feature_that_can_be_evaluated_is_fine(settings: str) -> None:
    assert parse(CONFIG.replace(b"offers:", (FEATURE % settings).encode(), 1)).features[4].name == "tried"


@pytest.mark.parametrize(
    "where",
    [
        "price / cost > 1.5",
        "price / (price - cost) > 1.5",
        "1.0 / (price - 99.5) > 1.0",
        "price * 1e307 - cost * 1e307 > 1.0",
        "amount / (price - 2.0 * cost + amount) > 1.5",
    ],
)
def test_a_feature_is_tried_on_numbers_that_its_event_may_have(where: str) -> None:
    """Zeros all over, which no event has here, would divide by zero, and what comes of it is no number."""
    more = b"price: {type: number, range: [1, 100]}\n      cost: {type: number, range: [1, 100]}\n      amount:"
    text = CONFIG.replace(b"amount:", more, 1)
    feature = FEATURE % f'function: count, where: "{where}"'
    assert parse(text.replace(b"offers:", feature.encode(), 1)).features[4].where == where


@pytest.mark.parametrize(
    ("values", "told"),
    [
        ("[food, food]", "the features of 'food' and 'food' both end in _food; expected values with different letters"),
        ("['x y', x_y]", "the features of 'x y' and 'x_y' both end in _x_y"),
        ("[e, é]", "the features of 'e' and 'é' both end in _e"),
        ("[Café, 食]", "values: nothing of '食' can stand in the name of a feature; expected a value with letters a-z"),
    ],
)
def test_values_that_make_no_names_of_their_own_are_told(values: str, told: str) -> None:
    by = f"function: count, by: {{attribute: category, values: {values}}}, window: 7d".encode()
    [problem] = problems(CONFIG.replace(b"function: count, window: 7d", by))
    assert told in problem
    assert problem.startswith(f"shop.yaml:{line_with(CONFIG, 'name: purchases_7d')}: features[1].by: values: ")


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ('["complaints_90d == 0.0", "spent_30d > 100.0"]', "[false]",
         "offers[1].eligibility[0]: expected a rule, or a mapping with name and when, got False"),
        ('["complaints_90d == 0.0", "spent_30d > 100.0"]', "vip", "offers[1].eligibility: expected a list, got 'vip'"),
        ("placements: [desk]", "placements: desk", "channels[0].placements: expected a list, got 'desk'"),
        ("[{text: May we help?}]", "[]", "offers[2].treatments: expected at least 1 in the list, there are 0"),
        ("[{text: May we help?}]", "[May]", "offers[2].treatments[0]: expected a mapping, got 'May'"),
        ("text: May we help?", "text: ''", "offers[2].treatments[0].text: expected a text that is not empty, got ''"),
        ("range: [0, 600]", "range: [0]", "context[1].range[1]: expected another entry"),
        ("limit: 3", "limit: 3\nlearning: {waves: x}", "learning.waves: expected 'auto' or a whole number, got 'x'"),
        ("limit: 3", "limit: 3\nexploration: {strength: very}",
         "exploration.strength: expected 'tuned' or a valid number, got 'very'"),
        ("function: count, window: 7d", "function: count, where: {amount: [1]}",
         "features[1].where.amount: expected a valid number or true or false or a text"),
        ("name: minutes,", "name: spent_30d,", "context[1].name: the name 'spent_30d' is already taken by features[0]"),
        ("  - type: complaint", "  - type: complaint\n  - type: purchase",
         "events[2].type: event type 'purchase' is already there as events[0]"),
    ],
)  # fmt: skip
def test_a_mistake_is_told_in_words_and_once(old: str, new: str, told: str) -> None:
    """Without names of types that nobody wrote, and without what follows from it."""
    text = CONFIG.decode().replace(old, new, 1).encode()
    with pytest.raises(ConfigError) as refusal:
        compiled(text, "shop.yaml")
    [problem] = str(refusal.value).splitlines()
    assert problem.split(": ", 1)[1] == told


def test_all_mistakes_are_told_at_once() -> None:
    text = CONFIG.replace(b"value: 40", b"value: x").replace(b"kind: service", b"kind: y")
    text = text.replace(b"window: 3d", b"window: 3y")
    assert [problem.split(":")[2].strip() for problem in problems(text)] == [
        "offers[0].value",
        "offers[1].window",
        "offers[2].kind",
    ]


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (b"", "shop.yaml:1: expected a mapping that begins with 'opportune: 1'"),
        (b"# nothing\n", "shop.yaml:1: expected a mapping"),
        (b"- a\n- b\n", "shop.yaml:1: expected a mapping"),
        (b"just words", "shop.yaml:1: expected a mapping"),
        (b"42", "shop.yaml:1: expected a mapping"),
        (b"opportune: 1\nname: [a\nchannels: b: c\n", "shop.yaml:3: "),
        (b"opportune: 1\nname: shop\nname: shop\n", "shop.yaml:3: "),
        (b"opportune: 1\n\tname: shop\n", "shop.yaml:2: "),
        (b"opportune: 1\nname: *nobody\n", "shop.yaml:2: "),
        (b"opportune: 1\nname: &me [*me]\n", "shop.yaml:2: name: expected"),
        (b"opportune: 1\nname: \xff\xfe\n", "shop.yaml:2: byte 19 is not UTF-8"),
        (b"opportune: 1\nname: a\x00b\n", "shop.yaml:1: unacceptable character"),
        (b"opportune: 1\nname: !!python/object:os.system [x]\n", "shop.yaml:2: name: expected"),
        (b"{}", "shop.yaml:1: opportune: Field required"),
    ],
)
def test_what_is_no_configuration_at_all(text: bytes, told: str) -> None:
    assert problems(text)[0].startswith(told)


BOMB = b"x: &a0 [x, x, x, x, x, x, x, x, x, x]\n" + b"".join(
    b"a%d: &a%d [%s]\n" % (n, n, b", ".join([b"*a%d" % (n - 1)] * 10)) for n in range(1, 9)
)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (BOMB, "shop.yaml:6: stands for 1111111 values with its aliases, at most 1000000"),
        (b"opportune: 1\na: " + b"[" * 5_000 + b"]" * 5_000, "shop.yaml:2: lists and mappings nested deeper than 64"),
        (b"opportune: 1\na: " + b"{b: " * 5_000 + b"1" + b"}" * 5_000, "shop.yaml:2: lists and mappings nested deeper"),
        (b"opportune: 1\na: " + b"[" * 65 + b"]" * 65, "shop.yaml:2: lists and mappings nested deeper than 64"),
        (b"opportune: 1\na:\n  - &a0 [x]\n" + b"".join(b"  - &a%d [*a%d]\n" % (n + 1, n) for n in range(100)),
         "shop.yaml:67: lists and mappings nested deeper than 64"),
    ],
)  # fmt: skip
def test_a_small_file_that_stands_for_a_huge_one_is_refused_at_once(text: bytes, told: str) -> None:
    began = time.monotonic()
    [problem] = problems(text)
    assert problem.startswith(told)
    assert time.monotonic() - began < 2.0


def test_aliases_save_writing_what_is_the_same() -> None:
    text = CONFIG.replace(b"category: {type: text,", b"category: &text {type: text,").replace(b"{type: flag}", b"*text")
    events = parse(text).events[0].attributes
    assert events["abroad"] == events["category"]


def test_a_file_of_nine_megabytes_is_not_even_parsed() -> None:
    text = CONFIG + b"#" * (9 * 1024 * 1024)
    assert problems(text) == [f"shop.yaml: more than {CONFIG_BYTES_MAX} bytes"]


def test_a_file_that_cannot_be_read_is_told_by_its_name(tmp_path) -> None:
    with pytest.raises(ConfigError, match=r"gone\.yaml: cannot be read: No such file"):
        load(tmp_path / "gone.yaml")
    with pytest.raises(ConfigError, match="cannot be read: Is a directory"):
        load(tmp_path)


def test_names_with_one_key_are_told() -> None:
    """Records name offers by 32 bits: two ids that share them are refused, not mixed up."""
    plumless, buckeroo = b"plumless", b"buckeroo"  # the best-known collision of CRC-32
    text = CONFIG.replace(b"id: card\n", b"id: plumless\n").replace(b"id: loan\n", b"id: buckeroo\n")
    text = text.replace(b"fallback: [card]", b"")
    assert plumless in text
    assert buckeroo in text
    [problem] = problems(text)
    assert "'buckeroo' and 'plumless' have the same 32-bit key; rename one" in problem


def test_the_version_is_of_the_text() -> None:
    """Any change of the file is another version, so an old record finds the very text it was made with."""
    assert version_of(CONFIG) == version_of(bytes(CONFIG))
    assert version_of(CONFIG) != version_of(CONFIG + b"\n")
    assert len(bytes.fromhex(version_of(CONFIG))) == 8
