"""What the page carries for its scripts: every row, every sample, every other baseline, compressed."""

from __future__ import annotations

import base64
import json
import struct
import zlib
from collections.abc import Mapping
from typing import Any

from markupsafe import Markup

_HEADER = b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x02\xff"


def packed(data: Mapping[str, Any]) -> Markup:
    """Return `data` as JSON, gzip, base64: letters and digits that no name in it can end."""
    text = json.dumps(data, separators=(",", ":"), allow_nan=False)
    return Markup(base64.b64encode(_gzip(text.encode("ascii"))).decode("ascii"))


def unpacked(text: str) -> Any:
    """Return what `packed` took."""
    return json.loads(zlib.decompress(base64.b64decode(text), wbits=31))


def plain(data: Mapping[str, Any]) -> Markup:
    """Return `data` as JSON that no name can end, whatever it holds, to be read as it stands."""
    text = json.dumps(data, allow_nan=False)
    for character in "<>&":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return Markup(text)


def _gzip(data: bytes) -> bytes:
    """Compress without the date and the system that gzip would note."""
    squeeze = zlib.compressobj(9, zlib.DEFLATED, -15)
    body = squeeze.compress(data) + squeeze.flush()
    return _HEADER + body + struct.pack("<II", zlib.crc32(data), len(data) & 0xFFFFFFFF)
