"""What the offers of one answer must be together: few of a category or kind, no bundle beside its parts."""

from collections.abc import Sequence

from engine.config_schema import Config
from models import Caps


def bundles_of(config: Config) -> list[tuple[int, tuple[int, ...]]]:
    """Bundles with the offers that they stand for, by their places."""
    place = {offer.id: at for at, offer in enumerate(config.offers)}
    return [
        (at, tuple(place[member] for member in offer.bundle.offers))
        for at, offer in enumerate(config.offers)
        if offer.bundle is not None
    ]


def caps_of(config: Config, silent: Sequence[int]) -> Caps | None:
    """What may not stand beside what; None: everything may. `silent` are the offers that stand alone."""
    bundles = bundles_of(config)
    groups: list[tuple[list[int], int]] = [([bundle, member], 1) for bundle, parts in bundles for member in parts]
    # Two bundles that share an offer would show it twice.
    groups += [
        ([first, second], 1)
        for at, (first, parts) in enumerate(bundles)
        for second, others in bundles[at + 1 :]
        if set(parts) & set(others)
    ]
    most = config.slate.most_per
    for name, cap in (("category", most.category), ("kind", most.kind)):
        if cap is None:
            continue
        classes: dict[str, list[int]] = {}
        for at, offer in enumerate(config.offers):
            classes.setdefault(getattr(offer, name), []).append(at)
        groups += [(members, cap) for members in classes.values() if len(members) > cap]
    if not groups and not silent:
        return None
    return Caps.of(len(config.offers) + 1, groups, silent)
