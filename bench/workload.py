"""The workload that the benchmarks share: a catalogue and customers, seeded, the same on every machine.

100 offers, 64 features of which 48 have windows, 40 distinct rules, a slate of 3. A customer's state comes from events
folded by the engine's own fold; nothing is filled in by other means.
"""

import random
from collections.abc import AsyncIterator
from dataclasses import dataclass
from functools import cache
from io import BytesIO
from typing import Any, Final

from ruamel.yaml import YAML

from engine.catalogue import Catalogue
from engine.config import parse, version_of
from engine.store.base import FeatureWrite, partition_of
from engine.store.redis import RedisStore
from features import Event, Layout, Offset
from opportune.v1 import decisions_pb2

SEED: Final = 20_261_121
CATEGORIES: Final = ("card", "loan", "savings", "insurance", "mobile", "broadband", "service", "retention")
EVENTS_A_CUSTOMER: Final = 8


@dataclass(frozen=True)
class Size:
    """How large a workload is."""

    offers: int = 100
    features: int = 64
    rules: int = 40
    customers: int = 100_000
    slate: int = 3
    channels: tuple[str, ...] = ("web",)
    policy: bool = False
    """With contact policy, budgets, a guard and levers by rule."""


FULL: Final = Size()
SMALL: Final = Size(customers=500)


BODY_CUSTOMER: Final = "customer-drawn--"
"""The customer that the bytes of a load name; as long as the others'."""


def customer_id(number: int) -> str:
    """Id of the customer of this number.

    >>> customer_id(7)
    'customer-0000007'
    """
    return f"customer-{number:07d}"


def config_tree(size: Size) -> dict[str, Any]:
    """The configuration, as it would stand in a file."""
    dice = random.Random(SEED)
    types = [f"channel.event_{n}" for n in range(8)]
    attributes = {f"amount_{n}": {"type": "number", "range": [0, 10_000]} for n in range(4)}
    functions = ("count", "sum", "mean", "count", "sum", "mean", "last", "recency")
    windows = ("1d", "7d", "30d", "90d")
    features = []
    for n in range(size.features):
        function = functions[n % len(functions)]
        feature: dict[str, Any] = {"name": f"feature_{n}", "event": types[n // 8 % len(types)], "function": function}
        if function in ("sum", "mean", "last"):
            feature["attribute"] = f"amount_{n % 4}"
        if function in ("count", "sum", "mean"):
            feature["window"] = windows[n // 8 % len(windows)]
        high = 20 if function == "count" else 2_592_000 if function == "recency" else 10_000
        feature["default"] = 0
        feature["input"] = {"kind": "linear", "range": [0, high]}
        features.append(feature)
    rules = []
    for _ in range(size.rules):
        left, right = dice.randrange(size.features), dice.randrange(size.features)
        low, high = dice.randrange(5_000, 9_000), dice.randrange(10)
        rules.append(f"feature_{left} < {low}.0 || feature_{right} > {high}.5 && page != 'cards'")
    offers: list[dict[str, Any]] = [
        {
            "id": f"offer-{n}",
            "category": CATEGORIES[n % len(CATEGORIES)],
            "value": dice.randrange(5, 200),
            "contact_cost": 0.1,
            "eligibility": sorted({rules[n % size.rules], *dice.sample(rules, 2)}),
            "treatments": [{"text": f"Offer {n}: something worth having, in a sentence or two of the usual length."}],
        }
        for n in range(size.offers)
    ]
    extra: dict[str, Any] = {}
    if size.policy:
        for n, offer in enumerate(offers):
            if n % 10 == 0:
                offer["levers"] = [{"when": rules[n % size.rules], "factor": 1.5}]
        extra["contact_policy"] = {
            "caps": [
                {"of": "offer", "most": 20, "within": "30d"},
                {"of": "category", "most": 50, "within": "7d"},
                {"of": "all", "most": 100, "per": "day"},
            ],
            "cool_off": [{"after": "declined", "of": "category", "for": "60d"}],
            "pressure": {"half_life": "14d", "cost": 0.01},
        }
        extra["budgets"] = [
            {"id": f"budget-{at}", "categories": [category], "units": 1_000_000_000, "consumed": "served"}
            for at, category in enumerate(CATEGORIES[:3])
        ]
        extra["guard"] = [{"name": "busy", "when": "feature_0 > 19.5"}]
    return {
        "opportune": 1,
        "name": "bench",
        "limit": size.slate,
        "channels": [{"id": channel, "placements": ["home"]} for channel in size.channels],
        "context": [{"name": "page", "type": "text", "values": ["home", "loans", "cards"], "default": "home"}],
        "events": [{"type": name, "attributes": attributes} for name in types],
        "features": features,
        "offers": offers,
        "fallback": ["offer-0"],
    } | extra


@cache
def config_text(size: Size) -> bytes:
    """The configuration file."""
    out = BytesIO()
    YAML().dump(config_tree(size), out)
    return out.getvalue()


def catalogue(size: Size) -> Catalogue:
    """The configuration, compiled."""
    text = config_text(size)
    return Catalogue.compile(parse(text), version_of(text), text)


def decide_body() -> bytes:
    """The Decide request that a load repeats."""
    request = decisions_pb2.DecideRequest(customer_id=BODY_CUSTOMER, channel="web", placement="home")
    request.context["page"].text = "loans"
    return request.SerializeToString()


def events_of(number: int, now_ms: int) -> list[Event]:
    """What a customer did in the last ninety days."""
    dice = random.Random(SEED + number)
    times = sorted(now_ms - dice.randrange(90 * 86_400_000) for _ in range(EVENTS_A_CUSTOMER))
    return [
        Event(
            dice.getrandbits(64) or 1,
            f"channel.event_{dice.randrange(8)}",
            time_ms,
            {f"amount_{n}": dice.randrange(100_000) / 10 for n in range(4)},
            Offset(1, at + 1),
        )
        for at, time_ms in enumerate(times)
    ]


async def fill(store: RedisStore, layout: Layout, customers: int, now_ms: int) -> AsyncIterator[int]:
    """Write the state of all customers; yields how many are written, now and then."""
    waiting: dict[int, list[FeatureWrite]] = {}
    for number in range(customers):
        customer = customer_id(number)
        record = layout.fold(None, events_of(number, now_ms)).record
        group = waiting.setdefault(partition_of(customer, store.partitions), [])
        group.append(FeatureWrite(customer, b"", record))
        if len(group) == 200:
            await store.write_features(partition_of(customer, store.partitions), group, Offset.ZERO, 0)
            group.clear()
            yield number + 1
    for partition, group in waiting.items():
        if group:
            await store.write_features(partition, group, Offset.ZERO, 0)
    yield customers
