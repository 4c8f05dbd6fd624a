"""What was refused at the door: dead letters, grouped by type and by the pattern of the reason."""

import re
from dataclasses import dataclass
from typing import Final

from engine.featurecheck import thresholds as at
from engine.featurecheck.finding import Finding, Level, duration, moment, percent

_QUOTED: Final = re.compile(r"'(?:[^'\\]|\\.)*'|\"(?:[^\"\\]|\\.)*\"")
_LISTED: Final = re.compile(r"; there are .*", re.DOTALL)
_NUMBER: Final = re.compile(r"(?<![\w.])-?\d+(?:\.\d+)?(?:e[+-]?\d+)?\b", re.IGNORECASE)
_REASON_CHARACTERS_MAX: Final = 200
_OTHERS: Final = "other reasons"


def pattern_of(reason: str) -> str:
    """A reason without what differs from one event to the next.

    >>> pattern_of("attributes[amount]: -3.5, expected 0.0 to 100000.0")
    'attributes[amount]: N, expected N to N'
    >>> pattern_of("type: no event type 'pruchase' is declared; there are purchase, complaint")
    'type: no event type … is declared'
    """
    return _NUMBER.sub("N", _LISTED.sub("", _QUOTED.sub("…", reason)))[:_REASON_CHARACTERS_MAX]


@dataclass(frozen=True, slots=True)
class RejectedFigures:
    """Dead letters of one type and one pattern."""

    type: str
    """Type of the event as its producer gave it; "" if it could not be read."""
    pattern: str
    letters: int
    recent: int
    """Of the last seven days before the newest thing that arrived."""
    newest_ms: int
    newest_reason: str


class Letters:
    """Dead letters, taken in newest first."""

    def __init__(self, recent_since_ms: int) -> None:
        self.letters = 0
        self.recent = 0
        self._recent_since_ms = recent_since_ms
        self._groups: dict[tuple[str, str], list[int]] = {}
        self._newest: dict[tuple[str, str], tuple[int, str]] = {}

    def add(self, arrival_ms: int, event_type: str, reason: str) -> None:
        """Take in one."""
        key = (event_type[:64], pattern_of(reason))
        if key not in self._groups and len(self._groups) >= at.PATTERNS_MAX:
            key = ("", _OTHERS)
        recent = arrival_ms >= self._recent_since_ms
        self._newest.setdefault(key, (arrival_ms, reason[:_REASON_CHARACTERS_MAX]))
        group = self._groups.setdefault(key, [0, 0])
        group[0] += 1
        group[1] += recent
        self.letters += 1
        self.recent += recent

    def figures(self) -> list[RejectedFigures]:
        """The groups, largest recent one first."""
        found = [
            RejectedFigures(event_type, pattern, letters, recent, *self._newest[event_type, pattern])
            for (event_type, pattern), (letters, recent) in self._groups.items()
        ]
        return sorted(found, key=lambda group: (-group.recent, -group.letters, group.type, group.pattern))


def rejected_findings(groups: list[RejectedFigures], accepted_recent: float) -> list[Finding]:
    """What was refused too often; `accepted_recent` events were accepted in the same seven days."""
    recent = sum(group.recent for group in groups)
    came = recent + accepted_recent
    found = []
    for group in groups:
        share = group.recent / came if came else 0.0
        level = Level.WARNING if share >= at.REJECTED_SHARE_WARN else Level.NOTE
        days = duration(at.REJECTED_RECENT_MS)
        measured = (
            f"{group.recent:,} events ({percent(share)}) were refused within {days}"
            if group.recent
            else f"{group.letters:,} events were refused, none within {days}"
        )
        found.append(
            Finding(
                level,
                "rejected",
                group.type or "(type unknown)",
                "rejected",
                share,
                f'{measured}: "{group.newest_reason}", last on {moment(group.newest_ms)}',
                f"below {percent(at.REJECTED_SHARE_WARN)}",
                "the reason says what was expected: mend the producer and publish them again",
            )
        )
    share = recent / came if came else 0.0
    if share >= at.REJECTED_SHARE_WARN and all(finding.level < Level.WARNING for finding in found):
        measured = f"{recent:,} events ({percent(share)}) were refused within {duration(at.REJECTED_RECENT_MS)}"
        expected = f"below {percent(at.REJECTED_SHARE_WARN)}"
        text = (measured, expected, "no reason stands out: go through those listed")
        found.append(Finding(Level.WARNING, "rejected", "all types", "rejected", share, *text))
    return found
