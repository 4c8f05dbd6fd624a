"""The course of one offer: its outcomes in the order in which they count, a correction in place of what it corrects.

An outcome is kept as a tag: 60 bits of the hash of its id, so that a repeat is known as one, and the stage that it
reported in the lowest four. What was corrected stays as a tag without stage, right behind its correction: somebody may
send it again. The ledger keeps tags, the attribution tags and what each outcome was worth. Pure.
"""

from collections.abc import Sequence
from typing import Final, NamedTuple

from engine.lifecycle import ADDS, NEXT, OPEN, Stage, expected_after, may_follow
from engine.limits import COURSE_ENTRIES_MAX

_STAGE_BITS: Final = 0xF
_STAGES: Final = frozenset(map(int, Stage))

assert max(Stage) <= _STAGE_BITS


class Told(NamedTuple):
    """One outcome of an offer."""

    tag: int
    part: int | None = None
    """Reward that it carried, in millionths; None if it carried none."""


def tag_of(outcome_hash: int, stage: Stage) -> int:
    """The tag of an outcome.

    >>> hex(tag_of(0xABCDEF, Stage.ACCEPTED))
    '0xabcde3'
    """
    return outcome_hash & ~_STAGE_BITS | stage


def same_id(tag: int, other: int) -> bool:
    """Whether two tags, or a tag and a hash, are of one outcome id."""
    return (tag ^ other) & ~_STAGE_BITS == 0


def is_known(told: Sequence[Told], outcome_hash: int) -> bool:
    """Whether an outcome of this id is among them, corrected since or not."""
    return any(same_id(tag, outcome_hash) for tag, _ in told)


def in_force(told: Sequence[Told]) -> list[tuple[Stage, int | None]]:
    """(stage, part) of the outcomes that count, in their order."""
    found = [(tag & _STAGE_BITS, part) for tag, part in told]
    return [(Stage(stage), part) for stage, part in found if stage in _STAGES]


def standing(told: Sequence[Told], base: Stage = Stage.SERVED) -> Stage:
    """Where the offer stands by what was told; `base` is where it stood before the first of them.

    >>> standing([Told(tag_of(16, Stage.PRESENTED)), Told(tag_of(32, Stage.ACCEPTED))]).name
    'ACCEPTED'
    """
    stages = [tag & _STAGE_BITS for tag, _ in told if tag & _STAGE_BITS in _STAGES]
    return Stage(stages[-1]) if stages else base


def problem(
    told: Sequence[Told],
    new: Told,
    corrects: int,
    now_at: Stage,
    *,
    base: Stage = Stage.SERVED,
    adds: bool,
    in_time: bool = False,
) -> str:
    """Why an outcome cannot be taken, in words; "" if it can.

    Args:
        told: the course so far.
        new: the outcome.
        corrects: hash of the id of the outcome that it corrects; 0 if it corrects none.
        now_at: where the offer stands, its window considered.
        base: where it stood before the first outcome in `told`.
        adds: whether the outcome carries a reward that the offer learns from.
        in_time: whether it happened while the window was open, although the log has moved on.
    """
    stage = Stage(new.tag & _STAGE_BITS)
    if len(told) >= COURSE_ENTRIES_MAX:
        return f"{len(told)} outcomes were reported of it already, no more are taken"
    if not corrects:
        before = standing(told, base) if in_time else now_at
        if may_follow(now_at, stage) or may_follow(before, stage) or (adds and now_at == stage and stage in ADDS):
            return ""
        again = f", or of an offer with rewards STAGE_{stage.name} again with another part of them"
        more = again if now_at == stage and stage in ADDS else ""
        return f"it is {now_at.name}, expected {expected_after(now_at)}{more}, got {stage.name}"
    at = next((at for at, old in enumerate(told) if same_id(old.tag, corrects)), None)
    if at is None:
        return "no outcome of that id is known of it, expected one that was reported of this offer and decision"
    if told[at].tag & _STAGE_BITS not in _STAGES:
        return "that outcome was corrected before, expected the id of its correction"
    was = base
    for number, old in enumerate([*told[:at], new, *told[at + 1 :]]):
        if old.tag & _STAGE_BITS not in _STAGES:
            continue
        following = Stage(old.tag & _STAGE_BITS)
        # What was shown twice was shown once: so the outcome before is put in force again.
        repeated = was == following and (number == at or following in ADDS)
        late = was in OPEN and following in NEXT[Stage.EXPIRED]
        if not (repeated or late or may_follow(was, following)):
            if number == at:
                return f"before that outcome it was {was.name}, expected {expected_after(was)} in its place"
            return f"{following.name}, told later, cannot follow {was.name}: correct the later outcome first"
        was = following
    return ""


def taken(told: Sequence[Told], new: Told, corrects: int) -> list[Told]:
    """The course with an outcome in which `problem` found nothing, or one of an offer of which nothing is known."""
    found = list(told)
    at = next((at for at, old in enumerate(found) if corrects and same_id(old.tag, corrects)), None)
    if at is None:
        found.append(new)
    else:
        found[at : at + 1] = [new, Told(found[at].tag & ~_STAGE_BITS)]
    return found
