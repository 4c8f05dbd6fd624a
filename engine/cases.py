"""Complaint cases: which complaints are one and the same, when each case was opened and closed. Pure.

Complaints come from every channel, and people complain again while nobody answers. Two are the same case if they have
the same case id, or if the attributes that the configuration names (`same`) are equal and the later one came within a
period of the earlier. A case is closed by an event that says so; another complaint of the case opens it again.

Everything follows from the complaints that the timeline keeps, in the order of their times.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from engine.config_schema import OnTimeline
from engine.timeline import Entry, Scalar, text_of


@dataclass(slots=True)
class Case:
    """One complaint case. Times are milliseconds since 1970-01-01 UTC."""

    id: str
    """The first case id that was given; one made from the first complaint if none was."""
    type: str
    """Type of the event that began it."""
    entry_id: int
    """Entry that began it."""
    first_ms: int
    last_ms: int
    """Last complaint, not counting what closed it."""
    opened_ms: int
    """First complaint, or the one that opened the case again."""
    closed_ms: int | None = None
    """None: it is open."""
    complaints: int = 1
    channels: list[str] = field(default_factory=list)
    """In the order in which they were first used."""
    named: bool = False
    """Whether `id` was given."""

    def age_ms(self, now_ms: int) -> int:
        """How long it has been open, or was open until it was closed."""
        return max(0, (now_ms if self.closed_ms is None else self.closed_ms) - self.opened_ms)


def cases_of(complaints: Iterable[tuple[Entry, OnTimeline, str]]) -> tuple[list[Case], dict[int, Case]]:
    """(cases in the order in which they began, the case of each entry by its id).

    `complaints` are entries, oldest first, with the settings of their type and their channel.
    """
    cases: list[Case] = []
    of_entry: dict[int, Case] = {}
    by_id: dict[str, Case] = {}
    by_same: dict[tuple[tuple[str, Scalar], ...], Case] = {}
    for entry, settings, channel in complaints:
        given = text_of(entry.attributes.get(settings.case or "", ""))
        same = _same(entry.attributes, settings)
        closes = closed_by(entry.attributes, settings)
        case = by_id.get(given) if given else None
        if case is None and same and (found := by_same.get(same)) is not None:
            # What closes a case comes when it comes; only a complaint has to come soon to be the same.
            still = found.closed_ms is None if closes else entry.time_ms - found.last_ms <= settings.within
            case = found if still else None
        if case is None:
            if closes:
                continue  # nothing is known of what it closes
            case = Case(
                given or f"#{entry.id:012x}",
                entry.type,
                entry.id,
                first_ms=entry.time_ms,
                last_ms=entry.time_ms,
                opened_ms=entry.time_ms,
                named=bool(given),
            )
            cases.append(case)
        elif closes:
            case.closed_ms = entry.time_ms if case.closed_ms is None else case.closed_ms
        else:
            case.complaints += 1
            case.last_ms = entry.time_ms
            if case.closed_ms is not None:
                case.opened_ms, case.closed_ms = entry.time_ms, None
        if given and not case.named:
            case.id, case.named = given, True
        if channel and channel not in case.channels:
            case.channels.append(channel)
        if given:
            by_id[given] = case
        if same and not closes:
            by_same[same] = case
        of_entry[entry.id] = case
    return cases, of_entry


def closed_by(attributes: Mapping[str, Scalar], settings: OnTimeline) -> bool:
    """Whether an event closes its case. A flag equals only a flag (in Python True == 1)."""
    closes = settings.closes
    if isinstance(closes, bool):
        return closes
    return all(
        name in attributes
        and attributes[name] == expected
        and isinstance(attributes[name], bool) == isinstance(expected, bool)
        for name, expected in closes.items()
    )


def _same(attributes: Mapping[str, Scalar], settings: OnTimeline) -> tuple[tuple[str, Scalar], ...]:
    """What makes two complaints the same; () if not all of it is known."""
    if not all(name in attributes for name in settings.same):
        return ()
    return tuple((name, attributes[name]) for name in settings.same)
