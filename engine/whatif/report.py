"""What a what-if came to: tables for people, JSON for programs."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import orjson
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from engine.whatif.tally import Tally

FAIR_SHARE_MIN: Final = 0.8
"""A segment that is reached less than this share as often as everybody is under-served: the four-fifths rule."""
_OFFERS_TOLD: Final = 20
_PEOPLE_MIN: Final = 30
"""Of fewer people in a segment nothing is said of fairness."""


@dataclass(frozen=True)
class Report:
    """Scenarios on a period of a log, the first being that of the log."""

    title: str
    tally: Tally
    remarks: Sequence[str]

    def content(self) -> dict[str, Any]:
        """All of it, plain."""
        tally = self.tally
        return {
            "log": self.title,
            "decisions": int(tally.decisions[0]),
            "people": int(tally.people[0]),
            "first_offer_as_logged": int(tally.as_logged),
            "scenarios": [self._scenario(at) for at in range(len(tally.scenarios))],
            "remarks": list(self.remarks),
        }

    def to_json(self) -> bytes:
        """The same for programs."""
        return orjson.dumps(self.content(), option=orjson.OPT_INDENT_2)

    def _scenario(self, at: int) -> dict[str, Any]:
        tally, counts = self.tally, self.tally.counts[at]
        parts = [self._part(at, part) for part in range(len(tally.parts))]
        channels = 1 + len(tally.channels)
        before = tally.counts[0]
        return {
            "scenario": tally.scenarios[at].name,
            "config_version": tally.scenarios[at].catalogue.version,
            "all": parts[0],
            "channels": parts[1:channels],
            "segments": parts[channels:],
            "under_served": [part["part"] for part in parts[channels:] if part["under_served"]],
            "offers": [
                {
                    "offer": offer,
                    "shown": int(counts.shown[o]),
                    "shown_first": int(counts.shown_first[o]),
                    "shown_more": int(counts.shown[o] - before.shown[o]),
                }
                for o, offer in enumerate(tally.offers)
            ],
        }

    def _part(self, at: int, part: int) -> dict[str, Any]:
        tally, counts = self.tally, self.tally.counts[at]
        decisions, people = int(tally.decisions[part]), int(tally.people[part])
        reached = int(counts.reached[part])
        share = reached / people if people else 0.0
        everybody = int(counts.reached[0]) / int(tally.people[0]) if tally.people[0] else 0.0
        worth = float(counts.worth[part])
        return {
            "part": tally.parts[part],
            "decisions": decisions,
            "people": people,
            "other_first_offer": int(counts.other_first[part]),
            "other_slate": int(counts.other_slate[part]),
            "silent": int(counts.silent[part]),
            "reached_people": reached,
            "reach": share,
            "reach_to_everybody": share / everybody if everybody else None,
            "under_served": bool(
                part > len(tally.channels) and people >= _PEOPLE_MIN and share < FAIR_SHARE_MIN * everybody
            ),
            "expected_value": worth,
            "expected_value_more": worth - float(tally.counts[0].worth[part]),
            "expected_value_a_person": worth / people if people else 0.0,
        }

    def print(self, console: Console) -> None:
        """The scenarios, then what is behind them."""
        content = self.content()
        scenarios = content["scenarios"]
        table = _table(
            f"{escape(self.title)}: {content['decisions']:,} decisions for {content['people']:,} people, decided again",
            ("scenario", "first offer changed", "slate changed", "nothing offered", "reach", "expected value", "more"),
        )
        for each in scenarios:
            table.add_row(escape(each["scenario"]), *_figures(each["all"]))
        console.print(table)
        for kind in ("channels", "segments"):
            if scenarios[0][kind]:
                console.print(self._by(kind, scenarios))
        console.print(self._by_offer(scenarios))
        for each in scenarios:
            for part in each["segments"]:
                if part["under_served"]:
                    who = f"{escape(each['scenario'])}: {escape(part['part'])}"
                    often = f"is reached {part['reach_to_everybody']:.0%} as often as everybody"
                    console.print(f"[bold yellow]under-served[/bold yellow] {who} {often}", highlight=False)
        again = content["first_offer_as_logged"]
        share = again / content["decisions"] if content["decisions"] else 1.0
        console.print(
            f"The first scenario makes {share:.1%} of the first offers of the log; the rest is what the model has "
            "learnt since. Expected values are the model's, without levers; for what answers say there is "
            "`opportune evaluate`.",
            highlight=False,
        )
        for remark in self.remarks:
            console.print(f"remark: {remark}", markup=False, highlight=False, soft_wrap=True)

    def _by(self, kind: str, scenarios: Sequence[dict[str, Any]]) -> Table:
        heads = (kind[:-1], "scenario", "decisions", "first offer changed", "slate changed", "nothing offered", "reach")
        table = _table(f"By {kind[:-1]}", (*heads, "expected value", "more"), names=2)
        for at, part in enumerate(scenarios[0][kind]):
            for number, each in enumerate(scenarios):
                name = "" if number else escape(part["part"])
                row = each[kind][at]
                table.add_row(name, escape(each["scenario"]), f"{row['decisions']:,}", *_figures(row))
        return table

    def _by_offer(self, scenarios: Sequence[dict[str, Any]]) -> Table:
        table = _table("By offer, how often it is shown", ("offer", *(escape(each["scenario"]) for each in scenarios)))
        rows = []
        for at, offer in enumerate(self.tally.offers):
            shown = [each["offers"][at] for each in scenarios]
            rows.append((max(abs(one["shown_more"]) for one in shown), offer, shown))
        rows.sort(key=lambda row: (-row[0], row[1]))
        for _, offer, shown in rows[:_OFFERS_TOLD]:
            cells = [f"{one['shown']:,}" + (f" ({one['shown_more']:+,})" if one["shown_more"] else "") for one in shown]
            table.add_row(escape(offer), *cells)
        if len(rows) > _OFFERS_TOLD:
            table.caption = f"those that change most, {_OFFERS_TOLD} of {len(rows)}; --json has all"
        return table


def _figures(part: dict[str, Any]) -> list[str]:
    decisions = part["decisions"] or 1
    return [
        f"{part['other_first_offer'] / decisions:.1%}",
        f"{part['other_slate'] / decisions:.1%}",
        f"{part['silent'] / decisions:.1%}",
        f"{part['reach']:.1%}",
        f"{part['expected_value']:,.0f}",
        f"{part['expected_value_more']:+,.0f}",
    ]


def _table(title: str, headings: Sequence[str], names: int = 1) -> Table:
    table = Table(title=title, title_justify="left")
    for at, heading in enumerate(headings):
        table.add_column(heading, justify="left" if at < names else "right")
    return table
