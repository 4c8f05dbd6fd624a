"""Texts of an open vocabulary as numbers: the same on every machine, in every release, for ever.

    hash(text) = the first six bytes, little endian, of BLAKE2b-64 of the text in UTF-8, person b"opportune-text-1"

48 bits, so that a double holds it exactly. Records of customers hold it and the model reads its columns from it, so it
never changes: another one would get another person string and another kind of input. The text counts as it was given:
"Prague" and "prague" are two texts. The empty text is none.
"""

from hashlib import blake2b
from typing import Final

HASH_BITS: Final = 48

_PERSON: Final = b"opportune-text-1"


def text_hash(text: str) -> float:
    """The number of a text, a whole one in 0 .. 2^48 - 1; -1 for the empty text. 1 µs.

    >>> text_hash("Prague"), text_hash("prague"), text_hash("")
    (216575022095944.0, 180351921894182.0, -1.0)
    """
    if not text:
        return -1.0
    digest = blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8, person=_PERSON).digest()
    return float(int.from_bytes(digest[: HASH_BITS // 8], "little"))


def shown_hash(value: float) -> str:
    """The number for people, who cannot be told the text: nobody kept it.

    >>> shown_hash(255.0)
    '#0000000000ff'
    """
    return f"#{int(value):0{HASH_BITS // 4}x}"
