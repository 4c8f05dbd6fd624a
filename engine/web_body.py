"""Bodies of HTTP that came packed. aiohttp would end the connection over a wrong one, and log it as an error of ours.

>>> import gzip
>>> unpacked(gzip.compress(b"{}"), "gzip", 100)
b'{}'
"""

import zlib
from typing import Final

from engine.errors import InvalidArgument
from engine.gateway import shown

ENCODINGS: Final = ("gzip", "deflate", "identity")


class TooLarge(Exception):
    """Unpacked it is larger than allowed."""


def unpacked(body: bytes, encoding: str, bytes_max: int) -> bytes:
    """A body as it was before it was packed. Raises InvalidArgument, and TooLarge before all of that is made."""
    encoding = encoding.strip().lower()
    if encoding in ("", "identity"):
        return body
    if encoding not in ENCODINGS:
        raise InvalidArgument(f"Content-Encoding: {shown(encoding)}, expected one of {', '.join(ENCODINGS)}")
    unpacker = zlib.decompressobj(_wbits(encoding, body))
    try:
        plain = unpacker.decompress(body, bytes_max + 1)
    except zlib.error as error:
        raise InvalidArgument(f"{_expected(encoding)}: {error}") from error
    if len(plain) > bytes_max:
        raise TooLarge
    if not unpacker.eof or unpacker.unused_data:
        raise InvalidArgument(f"{_expected(encoding)}: {'there is more behind it' if unpacker.eof else 'it is cut'}")
    return plain


def _expected(encoding: str) -> str:
    return f"body: cannot be read, expected one in Content-Encoding {shown(encoding)}"


def _wbits(encoding: str, body: bytes) -> int:
    """What zlib wants to know. Some leave out the head of deflate."""
    if encoding == "gzip":
        return 16 + zlib.MAX_WBITS
    return zlib.MAX_WBITS if body[:1] and body[0] & 0x0F == 8 else -zlib.MAX_WBITS
