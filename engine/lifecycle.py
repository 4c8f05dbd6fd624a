"""The life of an offer instance: which stage may follow which, and what each stage teaches.

The table is the truth: attribution follows it, Report checks it, docs/lifecycle.md is drawn from it (a test compares).
A stage teaches a target or nothing. Moving on takes the old lesson back and gives the new one, so a late yes reverses
the no that the closed window had stood for, exactly, and a cancelled order unteaches its acceptance.
"""

from collections.abc import Iterable
from enum import IntEnum
from typing import Final


class Stage(IntEnum):
    """Where an offer instance stands. The numbers are those of opportune.v1.Stage."""

    SERVED = 1
    PRESENTED = 2
    ACCEPTED = 3
    DECLINED = 4
    IGNORED = 5
    NOT_PRESENTED = 6
    FULFILLED = 7
    CANCELLED = 8
    EXPIRED = 9
    WITHDRAWN = 10
    CLICKED = 11


_ANSWERS = frozenset({Stage.ACCEPTED, Stage.DECLINED})

NEXT: Final[dict[Stage, frozenset[Stage]]] = {
    Stage.SERVED: _ANSWERS
    | {Stage.PRESENTED, Stage.CLICKED, Stage.IGNORED, Stage.NOT_PRESENTED, Stage.EXPIRED, Stage.WITHDRAWN},
    Stage.PRESENTED: _ANSWERS | {Stage.CLICKED, Stage.IGNORED, Stage.EXPIRED, Stage.WITHDRAWN},
    # Seen without a reaction: the customer may still answer while the window is open, and late.
    Stage.IGNORED: _ANSWERS | {Stage.CLICKED, Stage.EXPIRED, Stage.WITHDRAWN},
    # Interest that is no answer yet: a click, a question, a callback asked for.
    Stage.CLICKED: _ANSWERS | {Stage.EXPIRED, Stage.WITHDRAWN},
    # The window closed: a provisional no, which a late report may still correct.
    Stage.EXPIRED: _ANSWERS | {Stage.NOT_PRESENTED},
    Stage.ACCEPTED: frozenset({Stage.FULFILLED, Stage.CANCELLED}),
    Stage.DECLINED: frozenset(),
    Stage.NOT_PRESENTED: frozenset(),
    Stage.FULFILLED: frozenset({Stage.CANCELLED}),
    Stage.CANCELLED: frozenset(),
    Stage.WITHDRAWN: frozenset(),
}
"""Allowed moves."""

OPEN: Final = frozenset({Stage.SERVED, Stage.PRESENTED, Stage.IGNORED, Stage.CLICKED})
"""Stages in which the customer may still answer within the window."""

REPORTABLE: Final = frozenset(Stage) - {Stage.SERVED, Stage.EXPIRED}
"""Stages a caller may report; the others are the engine's own."""

ADDS: Final = frozenset({Stage.ACCEPTED, Stage.FULFILLED, Stage.CANCELLED})
"""Stages that may be reported again with another part of the rewards: what is paid in instalments adds up."""

TARGET_YES: Final = 100
TARGET_NO: Final = 0

TEACHES: Final[dict[Stage, int | None]] = {
    Stage.SERVED: None,
    Stage.PRESENTED: None,
    Stage.ACCEPTED: TARGET_YES,
    Stage.DECLINED: TARGET_NO,
    Stage.IGNORED: TARGET_NO,
    Stage.NOT_PRESENTED: None,  # what was never shown says nothing about the customer
    Stage.FULFILLED: TARGET_YES,
    Stage.CANCELLED: TARGET_NO,
    Stage.EXPIRED: TARGET_NO,
    Stage.WITHDRAWN: None,
    Stage.CLICKED: None,
}
"""Target in hundredths of an acceptance that an instance in this stage stands for; None: no lesson.

For an offer without terms of its own; engine.terms has those of an offer with."""

RESPONSES: Final = frozenset({Stage.CLICKED, Stage.ACCEPTED, Stage.FULFILLED, Stage.CANCELLED})
"""Stages that say that the customer did something about the offer, whatever came of it."""

NEUTRAL: Final = frozenset({Stage.NOT_PRESENTED, Stage.WITHDRAWN})
"""Stages that say nothing about the customer: not delivered, the wrong person, taken back by the seller."""

assert all(TEACHES[stage] is None for stage in NEUTRAL)
assert set(NEXT) == set(TEACHES) == set(Stage)
assert all(Stage.EXPIRED in NEXT[stage] for stage in OPEN), "whatever is open can expire"


def may_follow(old: Stage, new: Stage) -> bool:
    """Whether `new` may follow `old`.

    >>> may_follow(Stage.EXPIRED, Stage.ACCEPTED), may_follow(Stage.DECLINED, Stage.ACCEPTED)
    (True, False)
    """
    return new in NEXT[old]


def in_words(stages: Iterable[Stage]) -> str:
    """Stages as a caller says them, for error messages.

    >>> in_words(NEUTRAL)
    'STAGE_NOT_PRESENTED, STAGE_WITHDRAWN'
    """
    return ", ".join(f"STAGE_{stage.name}" for stage in sorted(stages))


def expected_after(old: Stage) -> str:
    """The allowed moves from `old` in words, for error messages.

    >>> expected_after(Stage.ACCEPTED)
    'STAGE_FULFILLED or STAGE_CANCELLED'
    """
    names = [f"STAGE_{stage.name}" for stage in sorted(NEXT[old]) if stage in REPORTABLE]
    return " or ".join(names) if names else "nothing more"


def mermaid() -> str:
    """The table as a Mermaid state diagram, for docs/lifecycle.md."""
    lines = ["stateDiagram-v2", "    [*] --> served"]
    for old, following in NEXT.items():
        lines += [f"    {old.name.lower()} --> {new.name.lower()}" for new in sorted(following)]
    return "\n".join(lines)
