"""Whether a text is a configuration that every process of an engine can serve with, and what is in it."""

import re
from collections import Counter
from collections.abc import Iterator
from typing import Final

from engine.catalogue import Catalogue
from engine.config import read, version_of
from engine.errors import ConfigError
from engine.rivermodel import check_challengers

_LINE: Final = re.compile(r":(\d+): ")


def compiled(text: bytes, name: str = "configuration", *, new: bool = False) -> Catalogue:
    """The catalogue of a text, `new` if it is to be put in force. Raises ConfigError with all problems that can be told
    at once, by line."""
    config, problems = read(text, name, new=new)
    catalogue: Catalogue | None = None
    try:
        catalogue = Catalogue.compile(config, version_of(text), text, name)
        check_challengers(catalogue, text, name)
    except ConfigError as error:
        problems += str(error).splitlines()
    except Exception:
        # What does not fit together need not compile; without a problem found before, it is a bug.
        if not problems:
            raise
    if problems or catalogue is None:
        raise ConfigError("\n".join(sorted(dict.fromkeys(problems), key=_line_of)))
    return catalogue


def _line_of(problem: str) -> int:
    found = _LINE.search(problem)
    return int(found[1]) if found else 0


def summary(catalogue: Catalogue) -> Iterator[tuple[str, int, str]]:
    """(what, how many, which) of a configuration, for tables."""
    config = catalogue.config
    kinds = Counter[str](offer.kind for offer in config.offers)
    categories = Counter(offer.category for offer in config.offers)
    treatments = [treatment for offer in config.offers for treatment in offer.treatments]
    languages = sorted({treatment.language or config.language for treatment in treatments})
    yield "offers", len(config.offers), _counted(kinds)
    yield "categories", len(categories), _counted(categories)
    yield "channels", len(config.channels), _named([channel.id for channel in config.channels])
    yield "treatments", len(treatments), _named(languages)
    yield "rules", len(catalogue.rules), ""
    yield "segments", len(config.segments), _named([segment.name for segment in config.segments])
    yield "facts", len(config.context), _named([fact.name for fact in config.context])
    yield "event types", len(config.events), _named([event.type for event in config.events])
    yield "features", catalogue.feature_count, _counted(Counter(feature.entity for feature in config.all_features))
    yield "inputs", catalogue.transform.dimension, "of the model"
    hashed = [f"{name} into {one.columns}{' signed' * one.signed}" for name, one in config.hashed.items()]
    yield "hashed texts", len(hashed), _named(hashed)
    listed = config.fallback if isinstance(config.fallback, dict) else {"": config.fallback}
    fallback = list(dict.fromkeys(offer for offers in listed.values() for offer in offers))
    yield "fallback", len(fallback), _named(fallback)
    yield "challengers", len(config.challengers), _named([challenger.name for challenger in config.challengers])
    yield "approvals", config.governance.approvals, "to put another version in this one's place"


def _counted(counts: Counter[str]) -> str:
    return _named([f"{name} {count:,}" for name, count in counts.most_common()])


def _named(names: list[str] | tuple[str, ...], shown: int = 8) -> str:
    more = f" and {len(names) - shown} more" if len(names) > shown else ""
    return ", ".join(names[:shown]) + more
