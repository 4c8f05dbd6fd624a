"""The past of a customer as messages: profile, segments, complaint cases, a page of the timeline."""

from collections.abc import Iterable, Sequence

from engine.answers import plain_value
from engine.cases import Case
from engine.timelineview import Item
from opportune.v1 import customers_pb2

REMEMBERING = ("last", "first")
"""Functions of the features that are a profile: they remember a value as it was told."""


def fill_cases(response: customers_pb2.Customer, cases: Iterable[Case], items: Iterable[Item], now_ms: int) -> None:
    """Complaint cases, open ones first, then the newest; `items` has the entries that began them."""
    texts = {item.id: item.text for item in items}
    for case in sorted(cases, key=lambda case: (case.closed_ms is not None, -case.last_ms, case.entry_id)):
        response.cases.add(
            case_id=case.id,
            type=case.type,
            text=texts[case.entry_id],
            complaints=case.complaints,
            channels=case.channels,
            first_ms=case.first_ms,
            last_ms=case.last_ms,
            open=case.closed_ms is None,
            closed_ms=case.closed_ms or 0,
            age_ms=case.age_ms(now_ms),
        )


def fill_timeline(response: customers_pb2.Customer, items: Sequence[Item]) -> None:
    """A page of the timeline, in its order."""
    for item in items:
        entry = response.timeline.add(
            time_ms=item.time_ms,
            kind=int(item.kind),
            channel=item.channel,
            placement=item.placement,
            text=item.text,
            type=item.type,
            author=item.author,
            case_id=item.case_id,
            duplicate=item.duplicate,
            decision_id=item.decision_id,
            offer_ids=item.offer_ids,
            stage=int(item.stage or 0),
        )
        for name, value in item.attributes.items():
            entry.attributes[name].CopyFrom(plain_value(value))


def fill_profile(response: customers_pb2.Customer, functions: Iterable[str]) -> None:
    """The features that remember a value; `functions` are those of `response.features`, in order."""
    pairs = zip(response.features, functions, strict=True)
    response.profile.extend(feature for feature, function in pairs if function in REMEMBERING)
