"""The environment that renders templates: everything escaped, nothing undefined."""

from __future__ import annotations

import base64
import hashlib
from pathlib import Path

import jinja2
from markupsafe import Markup

from harness.comparison import CONFIDENCE, MARGIN
from reports import frame, words
from reports.samples import FENCE

TEMPLATES = Path(__file__).parent / "templates"


def environment() -> jinja2.Environment:
    """Return the environment with the words, marks and numbers of the page."""
    made = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES, encoding="utf-8"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters |= {
        "time": words.format_time, "bytes": words.format_bytes, "ratio": words.format_ratio,
        "percent": words.format_percent, "direction": words.direction, "word": words.word,
        "threads": words.threads,
        "anchor": lambda text, kind: frame.anchor(kind, text),
    }  # fmt: skip
    made.globals |= {
        "icons": words.ICONS, "margin": MARGIN, "confidence": CONFIDENCE, "fence": FENCE,
        "script": _script,
    }  # fmt: skip
    return made


def _script(name: str) -> dict[str, Markup]:
    """Return a script and the digest by which the page's policy admits it, and no other."""
    text = (TEMPLATES / name).read_text(encoding="utf-8")
    digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode("ascii")
    return {"text": Markup(text), "digest": Markup(f"sha256-{digest}")}
