"""Contact policy, compiled: what of a catalogue is kept back from whom for the contacts that they had, and what one
more contact costs. Pure.

Caps and cool-offs are one thing here, a limit: it counts rows of the ledger (engine.contact_rows) from a time on, by
groups of offers, and holds for a group once there are as many as it allows. A cap goes by the time of the decision, a
cool-off by that of the outcome and allows none. Ledger and decision are written in one compare-and-set, so a cap is
exact, whichever servers and channels a customer comes to at once.

An offer may be of several groups of the configuration (engine.groups), its own and their parents. A contact counts for
those that its offer has now, so a group that is made today counts what was before; where the configuration has no such
offer any more, for the first group that it named then, and the parents that this one has now. What counts where is a
run of `chain`: of one part for all other limits, of each of its groups here.

An offer that was served and still waits for an answer is open, for as long as its window from that contact lasts. In an
inbound channel it is resumed: caps let it pass, and serving it again is no further contact. So whoever comes back gets
the same answer, and whoever comes for ever is not served for ever. In an outbound channel a contact is always one more.

Contact pressure is a sum over contacts that fades: 2^(−age / half-life) × weight of the channel each. Times the cost of
a contact it is a surcharge on every offer.
"""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Any, Final, NamedTuple
from zoneinfo import ZoneInfo

import numpy as np
from numpy.typing import NDArray

from engine import contact_kernel
from engine.config_schema import Config, key_of
from engine.contact_limits import KINDS, again_counts, of_cap, of_cool_off, scopes_of
from engine.contact_rows import AGAIN, ANY, FIRST, NO_GROUP, ROW, ROWS, Contact, bounded, placed, section, unpacked
from engine.holds import CONTACT_POLICY, Bools, Hold, Situation
from engine.ledger import Glance, Ledger, LedgerError
from engine.lifecycle import Stage
from engine.limits import CONTACT_WINDOW_MS_MAX, SLATE_MAX
from features import Offset
from models.exploration import Slates

_QUARTER_MS: Final = 900_000
_HALF_LIVES: Final = 20
"""After so many a contact weighs a millionth."""


class Look(NamedTuple):
    """What contact policy makes of the ledgers of a batch."""

    rows: Sequence[bytes]
    """Of the ledgers of the customers themselves, every row with its position."""
    clocks_ms: Sequence[int]
    holds: Sequence[Sequence[tuple[int, int, int, int]]]
    open: Sequence[dict[int, int]]
    """Until when, by offer that waits for an answer."""
    surcharges: NDArray[np.float64] | None


class Use(NamedTuple):
    """How far a limit is used."""

    name: str
    cools: bool
    scope: int
    used: int
    most: int
    until_ms: int
    """When it holds no longer; 0: it does not hold."""


class ContactPolicy:
    """The limits of one configuration."""

    def __init__(self, config: Config, categories: Sequence[str], windows_ms: Sequence[int]) -> None:
        """`windows_ms` are the answer windows of the offers, `categories` theirs."""
        policy = config.contact_policy
        assert policy is not None
        self.layer: Final = CONTACT_POLICY
        self.derived: Final = False
        self._zone = ZoneInfo(config.timezone)
        self._offers = len(config.offers)
        self._categories = sorted(set(categories))
        channels = [channel.id for channel in config.channels]
        self._limits = [of_cap(cap, config) for cap in policy.caps]
        self._limits += [of_cool_off(cool, config) for cool in policy.cool_off]
        self._caps = len(policy.caps)
        self._hides = len(self._limits)
        self._resumes = self._hides + 1
        self.names: Sequence[str] = (
            *(limit.name for limit in self._limits),
            "open already, and not served again while it is",
            "open already, and resumed",
        )
        outbound = [channel in policy.outbound for channel in channels]
        self._resume = [(policy.while_open_outbound if out else policy.while_open) == "resume" for out in outbound]
        self._spare = [resume and not out for resume, out in zip(self._resume, outbound, strict=True)]
        """By channel, whether what is open is no further contact."""
        self._pressure = policy.pressure
        self._keys = [key_of(offer.id) for offer in config.offers]
        self._row_constants = [
            (
                key_of(offer.id),
                key_of(offer.category),
                KINDS.index(offer.kind) + 1,
                key_of(offer.group[0]) if offer.group else NO_GROUP,
            )
            for offer in config.offers
        ]
        self._of_key = {constants[0]: constants for constants in self._row_constants}
        self._channel_keys = [key_of(channel) for channel in channels]
        longest = [limit.lasts_ms or 32 * 86_400_000 for limit in self._limits] + [max(windows_ms)]
        if self._pressure is not None:
            longest.append(min(_HALF_LIVES * self._pressure.half_life, CONTACT_WINDOW_MS_MAX))
        self.horizon_ms = max(longest)
        """What is older matters to nothing."""
        self._sorted_groups, self._group_order = _sorted([key_of(group.id) for group in config.groups])
        self._flatten(channels)
        self._windows_ms = np.array(windows_ms, dtype=np.int64)

    def _flatten(self, channels: Sequence[str]) -> None:
        """The limits as arrays, for the compiled functions."""
        limits = self._limits
        self._starts = np.cumsum([0, *(len(limit.groups) for limit in limits)]).astype(np.int64)
        flat = [(at, scope, mask) for at, limit in enumerate(limits) for scope, mask in limit.groups]
        self._of_group = [(at, scope) for at, scope, _ in flat]
        packed = [np.packbits(mask, bitorder="little").tobytes() for _, _, mask in flat]
        self._masks = {(at, scope): int.from_bytes(p, "little") for (at, scope, _), p in zip(flat, packed, strict=True)}
        self._bit_of_key = {key: 1 << at for at, key in enumerate(self._keys)}
        width = max([1, *(max(len(limit.members), len(limit.runs) + 1) for limit in limits)])
        self._members = np.full((len(limits), width), -1, dtype=np.int64)
        chain = list(range(len(flat)))
        for at, limit in enumerate(limits):
            self._members[at, : len(limit.members)] = limit.members
            start = int(self._starts[at])
            for line, run in enumerate(limit.runs):
                self._members[at, line] = len(chain)
                chain += [start + group for group in run]
                self._members[at, line + 1] = len(chain)
        self._chain = np.array(chain, dtype=np.int64)
        columns = [
            [
                limit.mode,
                limit.most,
                limit.cools,
                limit.contacts,
                # An answer has each offer once: only of groups of several there may be room for some and not for all.
                limit.served and any(mask.sum() > 1 for _, mask in limit.groups),
                again_counts(limit),
            ]
            for limit in limits
        ]
        self._settings = np.array(columns, dtype=np.int64).reshape(len(limits), 6)
        self._stages = np.array(
            [[stage in limit.stages or stage == ANY for stage in range(16)] for limit in limits], dtype=np.bool_
        ).reshape(len(limits), 16)
        everywhere = [[not limit.channels or channel in limit.channels for channel in channels] for limit in limits]
        # Then channels that are not there any more, and contacts of which the channel is not known.
        there = [[*row, not limit.channels, True] for row, limit in zip(everywhere, limits, strict=True)]
        self._in_channel = np.array(there, dtype=np.bool_).reshape(len(limits), len(channels) + 2)
        self._sorted_keys, self._key_order = _sorted(self._keys)
        self._sorted_channels, self._channel_order = _sorted(self._channel_keys)
        self._sorted_categories, self._category_order = _sorted([key_of(c) for c in self._categories])
        pressure = self._pressure
        if pressure is not None:
            weights = [pressure.channels.get(channel, pressure.weight) for channel in channels]
            self._weights = np.array([*weights, pressure.weight, max([*weights, pressure.weight])])
        # Which of the served caps concern an offer, for slates.
        self._tight = [
            (at, limit.most, scopes_of(limit))
            for at, limit in enumerate(limits)
            if limit.served and any(mask.sum() > 1 for _, mask in limit.groups)
        ]
        self._least = min([most for _, most, _ in self._tight], default=SLATE_MAX)

    # --- before the decision ----------------------------------------------------------------------------------------

    def look(
        self,
        glances: Sequence[Glance],
        ledgers: Sequence[bytes | None],
        channels: NDArray[np.int64],
        times_ms: NDArray[np.int64],
        limits: NDArray[np.int64],
        linked: Sequence[Sequence[bytes]] = (),
    ) -> Look:
        """What the ledgers of a batch mean, of which `limits` offers at most are asked for.

        `linked` has the ledgers of the names linked to each customer.
        """
        rows: list[bytes] = []
        all_rows: list[bytes] = []
        clocks: list[int] = []
        for at, (seen, data, time_ms) in enumerate(zip(glances, ledgers, times_ms.tolist(), strict=True)):
            own, clock_ms = self._rows(seen, data)
            rows.append(own)
            clocks.append(max(clock_ms, time_ms))
            for other in linked[at] if linked else ():
                more, clock_ms = self._rows_of(other)
                own += more
                clocks[at] = max(clocks[at], clock_ms)
            all_rows.append(own)
        count = len(rows)
        holds: list[list[tuple[int, int, int, int]]] = [[] for _ in range(count)]
        open_until: list[dict[int, int]] = [{} for _ in range(count)]
        joined = b"".join(all_rows)
        clock = np.array(clocks, dtype=np.int64)
        if not joined:
            return Look(rows, clocks, holds, open_until, None if self._pressure is None else np.zeros(count))
        table = np.frombuffer(joined, ROWS)
        starts = np.zeros(count + 1, dtype=np.int64)
        np.cumsum([len(some) // ROWS.itemsize for some in all_rows], out=starts[1:])
        since, ends = self._windows(clock)
        first, end, offers = self._spans(table, starts, channels, since)
        found, opened = contact_kernel.look(
            table, starts, channels, clock, limits, first, end, offers, self._settings, self._in_channel, self._starts,
            self._chain, self._windows_ms,
        )  # fmt: skip
        for at, group, room, time_ms in found.tolist():
            limit, scope = self._of_group[group]
            lasts_ms = self._limits[limit].lasts_ms
            until_ms = 0 if room else time_ms + lasts_ms if lasts_ms else int(ends[at, limit])
            holds[at].append((limit, scope, room, until_ms))
        for at, offer, until_ms in opened.tolist():
            open_until[at][offer] = max(until_ms, open_until[at].get(offer, 0))
        for at, waiting in enumerate(open_until):
            if waiting:
                channel = int(channels[at])
                if not self._resume[channel]:
                    holds[at] += [(self._hides, self._keys[o], 0, until_ms) for o, until_ms in waiting.items()]
                elif self._spare[channel] and (holds[at] or self._least < limits[at]):
                    holds[at] += [(self._resumes, self._keys[o], 0, until_ms) for o, until_ms in waiting.items()]
        surcharges = None
        if self._pressure is not None:
            pressure = contact_kernel.pressure(
                table, starts, clock, self._sorted_channels, self._channel_order, self._weights,
                float(self._pressure.half_life), self._pressure.grace,
            )  # fmt: skip
            surcharges = pressure * self._pressure.cost
        return Look(rows, clocks, holds, open_until, surcharges)

    def _rows(self, seen: Glance, data: bytes | None) -> tuple[bytes, int]:
        """Rows and clock of a ledger that was glanced at."""
        if seen.contacts is not None:
            return placed(seen.contacts, seen.newest), seen.contact_clock_ms
        return self._rows_of(data) if data is not None and data[1] else (b"", 0)

    def _rows_of(self, data: bytes | None) -> tuple[bytes, int]:
        """Rows and clock of any ledger; of one that nobody counted contacts in, those of the decisions that it has."""
        try:
            ledger = Ledger.unpack(data)
        except LedgerError:
            return b"", 0
        if ledger.contacts is not None:
            return b"".join([contact.pack() for contact in ledger.contacts]), ledger.contact_clock_ms
        parts = []
        for entry in ledger.decisions:
            for place, offer in enumerate(entry.offers):
                key, category, kind, group = self._of_key.get(offer.key, (offer.key, 0, 0, 0))
                rank = offer.rank | (0 if place else FIRST)
                row = Contact(
                    entry.position,
                    key,
                    category,
                    0,
                    entry.time_ms,
                    offer.changed_ms,
                    offer.stage,
                    kind,
                    rank,
                    group=group,
                )
                parts.append(row.pack())
        return b"".join(parts), max([entry.time_ms for entry in ledger.decisions], default=0)

    def _spans(
        self, table: NDArray[np.void], starts: NDArray[np.int64], channels: NDArray[np.int64], since: NDArray[np.int64]
    ) -> Any:
        return contact_kernel.spans(
            table, starts, channels, since, self._settings, self._stages, self._in_channel, self._members,
            self._starts, self._sorted_keys, self._key_order, self._sorted_categories, self._category_order,
            self._sorted_channels, self._channel_order, self._sorted_groups, self._group_order,
        )  # fmt: skip

    def _windows(self, clock: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """(B, limits) from when on each limit counts, and when a period of the calendar ends."""
        since = np.empty((len(clock), len(self._limits)), dtype=np.int64)
        ends = np.zeros_like(since)
        for at, limit in enumerate(self._limits):
            if limit.lasts_ms:
                since[:, at] = clock - limit.lasts_ms + 1
            else:
                for row, now_ms in enumerate(clock.tolist()):
                    since[row, at], ends[row, at] = period(limit.per, self._zone, now_ms // _QUARTER_MS)
        return since, ends

    # --- as a holder ------------------------------------------------------------------------------------------------

    def holds(self, situation: Situation) -> Sequence[Sequence[tuple[int, ...]]] | None:
        """As in engine.holds."""
        look = situation.contacts
        return None if look is None or not any(look.holds) else look.holds

    def covers(self, limit: int, scope: int) -> Bools:
        """As in engine.holds."""
        return self._array(self._bits(limit, scope))

    def kept_back(self, holds: Sequence[Hold]) -> Bools:
        """As in engine.holds: what is open passes caps, and only caps."""
        capped = spared = back = 0
        for limit, scope, room, _ in holds:
            if room:
                continue
            if limit < self._caps:
                capped |= self._bits(limit, scope)
            elif limit == self._resumes:
                spared |= self._bit_of_key.get(scope, 0)
            else:
                back |= self._bits(limit, scope)
        return self._array(back | (capped & ~spared))

    def _bits(self, limit: int, scope: int) -> int:
        """The offers that a hold keeps back, the first one in the lowest bit."""
        if limit == self._hides:
            return self._bit_of_key.get(scope, 0)
        return self._masks.get((limit, scope), 0)

    def _array(self, bits: int) -> Bools:
        data = np.frombuffer(bits.to_bytes(self._offers // 8 + 1, "little"), np.uint8)
        return np.unpackbits(data, count=self._offers, bitorder="little").view(np.bool_)

    def trim(self, slates: Slates, held: Sequence[Sequence[Hold]], channels: NDArray[np.int64]) -> Slates:
        """As in engine.holds. What is served stays as probable as it was drawn: it is what comes after that goes."""
        picks, propensities, explored = slates
        width = picks.shape[1]
        roomy = [any(hold.room for hold in holds) for holds in held]
        if width < 2 or (width <= self._least and not any(roomy)):
            return slates
        copied = False
        for at, row in enumerate(picks.tolist()):
            offers = [pick for pick in row if 0 <= pick < self._offers]
            if len(offers) < 2 or (len(offers) <= self._least and not roomy[at]):
                continue
            kept = self._with_room(offers, held[at] if held else (), int(channels[at]))
            if len(kept) == len(offers):
                continue
            if not copied:
                picks, propensities, explored, copied = picks.copy(), propensities.copy(), explored.copy(), True
            end = len(kept)
            for array in (picks, propensities, explored):
                array[at, :end] = array[at, kept]
            picks[at, end:], propensities[at, end:], explored[at, end:] = -1, 0.0, False
        return Slates(picks, propensities, explored)

    def _with_room(self, offers: Sequence[int], holds: Sequence[Hold], channel: int) -> list[int]:
        """Places of those of a slate that caps leave room for."""
        spared = {hold.scope for hold in holds if hold.limit == self._resumes}
        room = {(hold.limit, hold.scope): hold.room for hold in holds if hold.room}
        kept = []
        for place, offer in enumerate(offers):
            if self._keys[offer] in spared:
                kept.append(place)
                continue
            concerned = [
                ((at, scope), most)
                for at, most, of in self._tight
                if offer in of and self._in_channel[at, channel]
                for scope in of[offer]
            ]
            if all(room.get(group, most) > 0 for group, most in concerned):
                kept.append(place)
                for group, most in concerned:
                    room[group] = room.get(group, most) - 1
        return kept

    def crowded(self, holds: Sequence[Hold], chosen: Sequence[int], channel: int) -> list[tuple[int, Hold]]:
        """As in engine.holds."""
        spared = {hold.scope for hold in holds if hold.limit == self._resumes}
        room = {(hold.limit, hold.scope): hold.room for hold in holds if hold.room}
        taken = [offer for offer in chosen if self._keys[offer] not in spared]
        found = []
        for at, most, of in self._tight:
            if not self._in_channel[at, channel]:
                continue
            used = [scope for offer in taken for scope in of.get(offer, ())]
            full = {scope for scope in used if used.count(scope) >= room.get((at, scope), most)}
            found += [
                (offer, Hold(at, scope))
                for offer, scopes in of.items()
                for scope in scopes
                if scope in full and offer not in chosen and self._keys[offer] not in spared
            ]
        return found

    # --- after the decision -----------------------------------------------------------------------------------------

    def grown(self, look: Look, at: int, channel: int, offers: Sequence[int]) -> bytes:
        """The section of the contacts of a ledger with a decision that serves these offers, by rank."""
        return section(look.clocks_ms[at], self.with_served(look, at, channel, offers, Offset.ZERO))

    def with_served(self, look: Look, at: int, channel: int, offers: Sequence[int], position: Offset) -> bytes:
        """The rows with those of a decision at this position.

        A call that is dated earlier than one before it counts as of that one.
        """
        clock_ms, where = look.clocks_ms[at], self._channel_keys[channel]
        parts = [look.rows[at]]
        flag, spared = FIRST, look.open[at] if self._spare[channel] else {}
        for rank, offer in enumerate(offers, 1):
            if offer in spared:
                continue
            key, category, kind, group = self._row_constants[offer]
            # As Contact.pack has it, without making one first.
            stage = Stage.SERVED | kind << 4
            parts.append(
                ROW.pack(
                    position.ms, position.seq, key, category, where, clock_ms, clock_ms, stage, rank | flag, 1, group
                )
            )
            flag = 0
        return bounded(b"".join(parts), clock_ms - self.horizon_ms)

    def resumed(
        self, decision: Offset, rank: int, *, key: int, channel: str, time_ms: int, stage: Stage, now_ms: int
    ) -> Contact:
        """The row of an offer that has none: it was resumed, or is older than any limit asked for."""
        _, category, kind, group = self._of_key.get(key, (key, 0, 0, 0))
        where = key_of(channel) if channel else 0
        return Contact(decision, key, category, where, time_ms, now_ms, stage, kind, rank | AGAIN, group=group)

    # --- for people -------------------------------------------------------------------------------------------------

    def contacts_of(self, ledgers: Sequence[bytes | None]) -> tuple[list[Contact], int]:
        """All rows of the ledgers of one customer, and the clock."""
        found = [self._rows_of(data) for data in ledgers]
        rows = [row for some, _ in found for row in unpacked(some)]
        return rows, max([clock_ms for _, clock_ms in found], default=0)

    def uses(self, rows: Sequence[Contact], now_ms: int) -> list[Use]:
        """How far the limits are used, of groups with contacts, wherever the next contact takes place.

        A cap of each channel is told for each in which it holds; its scope is then the key of the channel.
        """
        table = np.frombuffer(b"".join([row.pack() for row in rows]), ROWS)
        since, ends = self._windows(np.array([now_ms], dtype=np.int64))
        starts = np.array([0, len(rows)], dtype=np.int64)
        # In no channel first; then in each, for the caps of each channel.
        by_channel = any(limit.mode == contact_kernel.CHANNEL for limit in self._limits)
        uses: list[tuple[int, Use]] = []
        for channel in range(-1, len(self._channel_keys) if by_channel else 0):
            first, end, _ = self._spans(table, starts, np.array([channel]), since)
            counts = contact_kernel.counts_of(table, 0, len(rows), first, end, self._starts, self._chain)
            for group in np.flatnonzero(counts).tolist():
                at, scope = self._of_group[group]
                limit, used = self._limits[at], int(counts[group])
                if (limit.mode == contact_kernel.CHANNEL) != (channel >= 0) or not self._in_channel[at, channel]:
                    continue
                until_ms = 0
                if used >= limit.most:
                    spans = first, end, self._settings, self._chain
                    freed_ms = int(contact_kernel.freed(table, 0, len(rows), at, group, *spans))
                    until_ms = freed_ms + limit.lasts_ms if limit.lasts_ms else int(ends[0, at])
                scope = scope if channel < 0 else self._channel_keys[channel]
                uses.append((at, Use(limit.name, limit.cools, scope, used, limit.most, until_ms)))
        return [use for _, use in sorted(uses, key=lambda one: one[0])]

    def pressure(self, rows: Sequence[Contact], now_ms: int) -> tuple[float, float]:
        """(contact pressure, what it adds to the cost of a contact)."""
        if self._pressure is None or not rows:
            return 0.0, 0.0
        [found] = contact_kernel.pressure(
            np.frombuffer(b"".join([row.pack() for row in rows]), ROWS),
            np.array([0, len(rows)], dtype=np.int64),
            np.array([now_ms], dtype=np.int64),
            self._sorted_channels, self._channel_order, self._weights,
            float(self._pressure.half_life), self._pressure.grace,
        ).tolist()  # fmt: skip
        return found, found * self._pressure.cost


def _sorted(keys: Sequence[int]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Keys ascending, and where each stood."""
    order = np.argsort(np.array(keys, dtype=np.int64), kind="stable").astype(np.int64)
    return np.array(keys, dtype=np.int64)[order], order


@lru_cache(maxsize=4_096)
def period(per: str, zone: ZoneInfo, quarter: int) -> tuple[int, int]:
    """(begin, end) in ms of the day, week (from Monday) or month there that a quarter of an hour lies in.

    Days begin at a quarter of an hour everywhere.

    >>> [at // 3_600_000 for at in period("day", ZoneInfo("Europe/Prague"), 4 * 24 * 10)]
    [239, 263]
    """
    local = datetime.fromtimestamp(quarter * (_QUARTER_MS // 1_000), UTC).astimezone(zone)
    day = datetime(local.year, local.month, local.day)
    if per == "day":
        first, last = day, day + timedelta(days=1)
    elif per == "week":
        first = day - timedelta(days=day.weekday())
        last = first + timedelta(days=7)
    else:
        first = day.replace(day=1)
        last = (first + timedelta(days=32)).replace(day=1)
    begin, end = (int(at.replace(tzinfo=zone).timestamp() * 1_000) for at in (first, last))
    return begin, end
