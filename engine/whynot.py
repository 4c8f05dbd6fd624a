"""Why not: what kept an offer away from a decision, layer by layer, read from the record. Pure.

    eligibility applicability suitability trigger   rules of the offer that did not hold
    channel treatment                               it is not made there, or there is nothing to say there
    validity                                        not within its dates
    contact_policy or another name                  a limit kept it back although its rules held (engine.holds)
"""

from collections.abc import Iterator
from functools import cached_property
from typing import Any, NamedTuple

import orjson

from engine.catalogue import Catalogue
from engine.holds import CONTROL_GROUP, HELD_BACK, NOT_ELIGIBLE
from engine.placements import PLACEMENT
from engine.record import DecisionRecord


class Unmet(NamedTuple):
    """One thing that kept an offer away."""

    layer: str
    name: str = ""
    expression: str = ""
    """A rule, as it stands in the configuration."""
    failed: bool = False
    """It could not be evaluated."""
    consent: str = ""
    """The flag that was not given and that it cannot hold without."""

    asked: str = ""
    """What was asked for, where it is neither a rule nor a limit."""

    @property
    def limit(self) -> bool:
        """Whether it is a limit that kept back what the rules allowed."""
        return not self.expression and not self.asked

    @property
    def plain(self) -> str:
        """In one line, without words of a language."""
        return self.expression or self.asked or self.name


class WhyNot:
    """What kept offers away from one decision. The record must be of the configuration."""

    def __init__(self, catalogue: Catalogue, record: DecisionRecord) -> None:
        self._catalogue = catalogue
        self._record = record
        self._held = int.from_bytes(record.rules_held, "little")
        self._failed = int.from_bytes(record.rules_failed, "little")
        self._holds = record.basis.holds if record.basis is not None else ()

    def of(self, offer: int) -> list[Unmet]:
        """What kept an offer away; nothing if it could be chosen."""
        catalogue, record = self._catalogue, self._record
        found = list(self._rules(offer))
        declared = catalogue.offers[offer]
        if not catalogue.in_channel[record.channel, offer]:
            channel = catalogue.config.channels[record.channel].id
            elsewhere = declared.channels and channel not in declared.channels
            asked = f"offered in channel {channel}, with a treatment for it"
            found.append(Unmet("channel" if elsewhere else "treatment", asked=asked))
        if not declared.starts_ms <= record.time_ms < declared.ends_ms:
            found.append(Unmet("validity", asked="within starts_ms and ends_ms"))
        holds = catalogue.holds
        for hold in holds.keeping(self._holds, offer):
            layer = holds.layer(hold)
            if layer == PLACEMENT:
                place = catalogue.placement_name(record.channel, record.placement) or "none"
                found.append(Unmet(layer, asked=f"offered in placement {place}, with a treatment for it"))
            else:
                found.append(Unmet(layer, holds.names[hold.limit]))
        return list(dict.fromkeys(found))

    def nothing(self) -> str:
        """Why nothing is in the answer, if nothing is: the code of the reason."""
        found = [self.of(offer) for offer in range(len(self._catalogue.offers))]
        if not all(found):
            return "silence"
        kept_back = [unmet for unmet in found if all(one.limit for one in unmet)]
        if not kept_back:
            return NOT_ELIGIBLE
        return CONTROL_GROUP if any(one.layer == CONTROL_GROUP for unmet in kept_back for one in unmet) else HELD_BACK

    @cached_property
    def _facts(self) -> Any:
        return orjson.loads(self._record.context) if self._record.context else {}

    def _rules(self, offer: int) -> Iterator[Unmet]:
        missing = self._catalogue.offer_masks[offer] & ~self._held
        if not missing:
            return
        for rule in self._catalogue.offer_rules[offer]:
            if missing >> rule.at & 1:
                consent = "" if not rule.consent or self._facts.get(rule.consent) is True else rule.consent
                yield Unmet(rule.layer, rule.name, rule.text, bool(self._failed >> rule.at & 1), consent)
