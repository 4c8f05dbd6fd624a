"""Sentences about one decision, in the words of a language. Pure."""

import dataclasses
import math
from collections.abc import Sequence
from datetime import datetime
from functools import cached_property
from typing import Any, Final, NamedTuple
from zoneinfo import ZoneInfo

import numpy as np
import orjson

from engine.explain.case import Case
from engine.explain.contributions import COMBINED, POINTS
from engine.explain.standing import Standing
from engine.explain.words import Number, Words, amount
from engine.formats import moment
from engine.hashed import Naming
from engine.holds import CONTROL_GROUP, HELD_BACK, Hold
from engine.ladder import Rung
from engine.parameters import unpack
from engine.placements import PLACEMENT
from engine.timeline import text_of
from engine.valuecode import ValueCodeError, decoded
from engine.whynot import Unmet
from models import STEPS

PARTS_TOLD_MAX: Final = 3
"""Inputs that a sentence names, for and against."""
_PART_MIN: Final = 0.0005
"""What moves an estimate by less is not worth a word."""


class Reason(NamedTuple):
    """Why an offer is in the answer, or is not."""

    code: str
    text: str
    worth: float = 0.0
    """At stake."""


def free_again_ms(holds: Sequence[Hold]) -> int:
    """When none of these holds any longer; 0: it is not known, or there are none."""
    return max((hold.until_ms for hold in holds), default=0) if all(hold.until_ms for hold in holds) else 0


class Story:
    """What there is to say about a case."""

    def __init__(self, case: Case, words: Words, standing: Standing | None = None) -> None:
        self.case = case
        self.standing = standing
        self.words = words

    @cached_property
    def values(self) -> dict[str, str]:
        """What each input was, by name of its feature or fact."""
        case, words = self.case, self.words
        if not case.readable:
            return {}
        catalogue = case.catalogue
        missing = [spec.missing for layout in catalogue.layouts.values() for spec in layout.specs]
        missing += catalogue.fact_defaults.tolist()
        never = [not math.isnan(value) for value in missing]
        units = {feature.name: feature.unit for feature in catalogue.config.all_features}
        beside = np.where(case.x < STEPS, case.x + 1, case.x - 1).astype(np.int8)
        restored = catalogue.transform.restore(case.x[None], never)[0]
        steps = np.abs(catalogue.transform.restore(beside[None], [True] * len(never))[0] - restored)
        found = {}
        for column, value, step in zip(catalogue.columns, restored.tolist(), steps.tolist(), strict=True):
            if math.isnan(value):
                found[column.name] = words.not_known
            elif column.kind == "hashed":
                found[column.name] = self._hashed(column.name, int(value))
            elif column.kind == "text":
                found[column.name] = column.categories[int(value)]
            elif column.kind == "flag":
                found[column.name] = words.yes if value >= 0.5 else words.no
            else:
                unit = units.get(column.name, "")
                told = _rounded(value, step) + (f" {unit}" if unit else "")
                found[column.name] = words.about.format(value=Number(told))
        return found

    def _hashed(self, name: str, column: int) -> str:
        """A hashed text with the column that it shares; as it was given, if that is known."""
        naming, value = self._namings[name], self._hashes.get(name)
        if value is None or naming.column(value) != column:
            value = None  # the record is of an earlier release, or another value was scored
        said = self._said.get(name)
        text = "?" if value is None else naming.text(value, said if isinstance(said, str) else None)
        return self.words.hashed.format(value=text, column=column, columns=naming.columns)

    @cached_property
    def _namings(self) -> dict[str, Naming]:
        return {name: Naming(given) for name, given in self.case.catalogue.config.hashed.items()}

    @cached_property
    def _said(self) -> dict[str, Any]:
        """Facts as the caller gave them, or their defaults."""
        context, config = self.case.record.context, self.case.catalogue.config
        said: dict[str, Any] = {feature.name: feature.default for feature in config.all_features}
        said |= {fact.name: fact.default for fact in config.context}
        return said | (orjson.loads(context) if context else {})

    @cached_property
    def _hashes(self) -> dict[str, float]:
        """Of each hashed text the hash that the decision saw."""
        basis, columns = self.case.record.basis, self.case.catalogue.rule_columns
        if basis is None or not basis.seen:
            return {}
        try:
            row = decoded([basis.seen], len(columns))[0].tolist()
        except ValueCodeError:
            return {}
        return {column.name: row[at] for at, column in enumerate(columns) if column.kind == "hashed" and row[at] >= 0.0}

    # --- one offer --------------------------------------------------------------------------------------------------

    def reason(self, at: int) -> Reason:
        """Why an offer is in the answer, or is not."""
        case, words = self.case, self.words
        unmet = case.unmet[at]
        if unmet and all(one.limit for one in unmet):
            groups = [one.name for one in unmet if one.layer == CONTROL_GROUP]
            if not groups:
                return Reason(HELD_BACK, self._held(at))
            text = words.control_group.format(offer=self._offer(at), group=", ".join(groups))
            return Reason(CONTROL_GROUP, text)
        if unmet:
            text = words.not_eligible.format(offer=self._offer(at), rules=self._rules(at))
            return Reason("not_eligible", text)
        if at in case.chosen:
            return self._of_chosen(at)
        if case.held[at]:
            return Reason(HELD_BACK, self._held(at))
        worth = case.worth(at)
        if worth is None:
            return Reason("not_chosen", words.not_chosen_unknown.format(offer=self._offer(at)))
        if not case.chosen or case.record.nothing_propensity:
            if worth > 0.0:
                text, code = words.not_drawn_silence.format(worth=amount(worth)), "not_drawn"
            else:
                text, code = words.worth_less_than_nothing.format(less=amount(-worth)), "not_chosen"
            return Reason(code, text, worth)
        other, (_, choice) = min(case.chosen.items(), key=lambda item: item[1][1].score)
        more, chosen = worth - choice.score, self._offer(other)
        if more > 0.0:
            text, code = words.not_drawn.format(more=amount(more), chosen=chosen), "not_drawn"
        else:
            text, code = words.not_chosen.format(less=amount(-more), chosen=chosen), "not_chosen"
        return Reason(code, text, more)

    def rung(self, at: int) -> Reason | None:
        """What the estimate of an offer rests on; None where that is not known."""
        if self.standing is None or at in self.case.catalogue.silent.offers:
            return None
        words, foothold = self.words, self.standing.footholds[at]
        template = {Rung.POINTS: words.rung_points, Rung.CATEGORY: words.rung_category, Rung.OWN: words.rung_own}
        text = template[foothold.rung].format(
            category=self.case.catalogue.offers[at].category, **dataclasses.asdict(foothold)
        )
        return Reason(foothold.rung.code, text, foothold.weight)

    def _of_chosen(self, at: int) -> Reason:
        case, words = self.case, self.words
        better = case.better(at)
        if better is None:
            return Reason("best", words.best)
        other, more = better
        told = {"more": amount(more), "offer": self._offer(at), "propensity": case.chosen[at][1].propensity}
        text = (
            words.explored_over_silence.format(**told)
            if other is None
            else words.explored.format(other=self._offer(other), **told)
        )
        return Reason("explored", text, more)

    def of_offer(self, at: int, reason: Reason) -> str:
        """An offer in a few sentences."""
        case, words = self.case, self.words
        if case.unmet[at] or case.held[at]:
            return reason.text
        estimate, worth = case.estimate(at), case.worth(at)
        if estimate is None or worth is None:
            return reason.text
        if at in case.chosen:
            parts = [self.rank(at)]
        else:
            told = words.estimate_only.format(
                offer=self._offer(at), estimated=self._estimated(at), estimate=estimate, worth=amount(worth)
            )
            parts = [told]
        parts.append(reason.text)
        shown = case.shown(at)
        if shown is not None and abs(shown - min(max(estimate, 0.0), 1.0)) >= _PART_MIN:
            parts.append(words.calibrated.format(shown=shown))
        parts += self._weighed(at)
        rung = self.rung(at)
        if rung is not None:
            parts.append(rung.text)
        base_rate = case.base_rate(at)
        if base_rate is not None and at not in case.catalogue.silent.offers:
            average = case.belief is not None and case.belief.average is not None
            base = words.base_average if average else words.base_middle
            parts.append(base.format(estimated=self._estimated(at), base=base_rate))
            parts += self._parts(at, words.speaks_for, words.speaks_against)
        return " ".join(parts)

    def _weighed(self, at: int) -> list[str]:
        """Which weights and risks an offer had, and what the answer to a question was worth."""
        case, words = self.case, self.words
        sentences = []
        told = []
        for one in case.catalogue.weighing.told(case.verdict, case.record.channel, at):
            if one.source in ("risk_customer", "risk_company"):
                template = words.risk_customer if one.source == "risk_customer" else words.risk_company
                told.append(template.format(name=one.name, loss=amount(one.amount)))
            else:
                told.append(words.weight.format(name=one.name, times=one.amount))
        if told:
            sentences.append(words.weighs.format(factors=", ".join(told)))
        if case.information(at):
            sentences.append(words.information.format(amount=amount(case.information(at))))
        return sentences

    def _estimated(self, at: int) -> str:
        """What the model estimates of an offer."""
        of_value = self.case.catalogue.offer_keys[at] in self.case.catalogue.terms
        return self.words.share_of_value if of_value else self.words.acceptance

    def rank(self, at: int) -> str:
        """The numbers of an offer in the answer, from the record."""
        rank, choice = self.case.chosen[at]
        return self.words.rank.format(
            rank=rank,
            offer=self._offer(at),
            estimated=self._estimated(at),
            estimate=choice.mean,
            sd=choice.sd,
            worth=amount(choice.score),
            propensity=choice.propensity,
        )

    def _parts(self, at: int, speaks_for: str, against: str) -> list[str]:
        contributions = self.case.contributions(at)
        sentences = []
        for template, sign in ((speaks_for, 1), (against, -1)):
            told = [part for part in contributions if sign * part[1] >= _PART_MIN][:PARTS_TOLD_MAX]
            if told:
                sentences.append(template.format(parts=", ".join(self._part(*part) for part in told)))
        return sentences

    def _part(self, name: str, probability: float) -> str:
        points = 100.0 * probability
        if name in (COMBINED, POINTS):
            template = self.words.combined if name == COMBINED else self.words.by_points
            return template.format(points=points)
        return self.words.part.format(input=name, value=self.values[name], points=points)

    def _held(self, at: int) -> str:
        """What keeps an offer back, and until when."""
        holds, words = self.case.held[at], self.words
        names = self.case.catalogue.holds.names
        told = {"offer": self._offer(at), "limits": "; ".join(dict.fromkeys(names[hold.limit] for hold in holds))}
        until_ms = free_again_ms(holds)
        if not until_ms:
            return words.offer_held_back.format(**told)
        # Told to the minute, and not too early.
        zone = ZoneInfo(self.case.catalogue.config.timezone)
        until = datetime.fromtimestamp(-(-until_ms // 60_000) * 60, zone)
        return words.offer_held_back_until.format(until=f"{until:%Y-%m-%d %H:%M}", **told)

    def _rules(self, at: int) -> str:
        """What kept an offer away; the layer is said once for all that follow in it."""
        told, before = [], "eligibility"
        for one in self.case.unmet[at]:
            layer = self.words.layers.get(one.layer, one.layer.replace("_", " "))
            told.append(self.unmet(one) if one.layer == before or not layer else f"{layer}: {self.unmet(one)}")
            before = one.layer
        return "; ".join(told)

    def unmet(self, one: Unmet) -> str:
        """One thing that kept an offer away, in words."""
        case, words = self.case, self.words
        if one.layer in ("channel", "treatment"):
            channel = case.catalogue.config.channels[case.record.channel].id
            return (words.wrong_channel if one.layer == "channel" else words.no_treatment).format(channel=channel)
        if one.layer == PLACEMENT:
            record, catalogue = case.record, case.catalogue
            placement = catalogue.placement_name(record.channel, record.placement) or "–"
            channel = catalogue.config.channels[record.channel].id
            return words.wrong_placement.format(placement=placement, channel=channel)
        if one.layer == "validity":
            return words.wrong_time
        if not one.expression:
            return words.held_back.format(limit=one.name)
        if one.name and one.name != one.expression:
            rule = words.rule_named.format(name=one.name, rule=one.expression)
        else:
            rule = one.expression
        if one.consent:
            return words.no_consent.format(rule=rule, consent=one.consent)
        return (words.rule_failed if one.failed else words.rule_not_held).format(rule=rule)

    def _offer(self, at: int) -> str:
        return self.case.catalogue.offer_ids[at]

    # --- the decision -----------------------------------------------------------------------------------------------

    def caveat(self) -> str:
        """What is not as it was when the decision was made; "" if all is."""
        case, words = self.case, self.words
        if case.parts is None or case.belief is None:
            return words.no_belief
        told = {"version": case.record.policy_version, "used": case.belief.version}
        parts = []
        if case.belief.version != case.record.policy_version:
            parts.append(words.other_version.format(**told))
        elif not case.agrees and not case.unknown_offers:
            parts.append(words.disagrees.format(**told))
        if case.points_approximate:
            parts.append(words.points_later)
        if case.unknown_offers:
            parts.append(words.offers_unknown.format(offers=", ".join(case.unknown_offers), **told))
        return " ".join(parts)

    def summary(self, texts: Sequence[str], degraded: str) -> str:
        """The whole story; `texts` are those of the offers chosen, in their order."""
        case, words = self.case, self.words
        eligible = sum(not unmet for unmet in case.unmet)
        situation = words.situation.format(
            customer=case.record.customer,
            known=words.known if case.record.known else words.unknown,
            eligible=eligible,
            offers=len(case.unmet),
            channel=case.catalogue.config.channels[case.record.channel].id,
        )
        parts = [situation, *texts]
        if not eligible:
            parts.append(self._nothing_left())
        elif not case.chosen:
            parts.append(words.silence_drawn.format(propensity=case.record.nothing_propensity))
            parts.append(self._why_silence())
        elif case.record.nothing_propensity:
            parts.append(words.silence_after.format(propensity=case.record.nothing_propensity))
        if case.standing.names:
            parts.append(words.arms.format(arms=", ".join(case.standing.names)))
        if degraded:
            parts.append(words.degraded.format(reason=degraded))
        parts.append(self.caveat())
        return " ".join(part for part in parts if part)

    def _nothing_left(self) -> str:
        """Why there was nothing to choose from."""
        case, words = self.case, self.words
        kept_back = [at for at, unmet in enumerate(case.unmet) if all(one.limit for one in unmet)]
        for at in kept_back:
            if (reason := self.reason(at)).code == CONTROL_GROUP:
                return reason.text
        return words.all_held_back if kept_back else words.nothing_eligible

    def _why_silence(self) -> str:
        case, words = self.case, self.words
        worths = [(case.worth(at), at) for at, unmet in enumerate(case.unmet) if not unmet and not case.held[at]]
        known = [(worth, at) for worth, at in worths if worth is not None]
        if not known:
            return ""
        worth, at = max(known)
        if worth <= 0.0:
            return words.silence_best
        return words.silence_explored.format(other=self._offer(at), worth=amount(worth))

    def _quoted(self, at: int) -> list[str]:
        """The parameters of an offer of the answer, and until when they are promised."""
        case, words = self.case, self.words
        basis = case.record.basis
        quote = unpack(b"" if basis is None else basis.parameters).get(self._offer(at))
        if quote is None or not quote.parameters:
            return []
        declared = case.catalogue.offers[at].parameters
        told = [
            f"{name} {text_of(value)} {declared[name].unit if name in declared else ''}".strip()
            for name, value in quote.parameters.items()
        ]
        sentences = [words.brief_parameters.format(parameters=", ".join(told))]
        if quote.held_until_ms:
            zone = case.catalogue.config.timezone
            sentences.append(words.brief_held.format(date=moment(quote.held_until_ms, zone).strftime("%Y-%m-%d %H:%M")))
        return sentences

    def brief(self) -> str:
        """For whoever speaks with the customer: the offer at rank 1."""
        case, words = self.case, self.words
        if not case.chosen:
            eligible = any(not unmet for unmet in case.unmet)
            return f"{words.brief_nothing} {self._why_silence() if eligible else self._nothing_left()}".strip()
        first = next(iter(case.chosen))
        parts = [words.brief_offer.format(offer=self._offer(first)), *self._quoted(first)]
        parts += self._parts(first, words.brief_for, words.brief_against)
        better = case.better(first)
        if better is not None and better[0] is not None:
            parts.append(words.brief_explored.format(other=self._offer(better[0]), more=amount(better[1])))
        return " ".join(parts)


def _rounded(value: float, step: float) -> str:
    """A value told about as finely as the model can tell values apart.

    >>> _rounded(492.1, 17.0), _rounded(9.921, 0.24), _rounded(1.02, 0.08)
    ('490', '9.9', '1.0')
    """
    digits = -round(math.log10(step)) if step > 0.0 else 0
    return f"{round(value, digits) + 0.0:,.{max(digits, 0)}f}"
