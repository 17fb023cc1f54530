"""Figures as inline SVG: deterministic, with unique ids, colours of the page and words beside."""

from __future__ import annotations

import io
import re
from xml.etree import ElementTree as ET

import matplotlib as mpl
from markupsafe import Markup
from matplotlib.figure import Figure

from reports.look import PALETTE, style

_XLINK = "http://www.w3.org/1999/xlink"
_LONG = re.compile(r"-?\d+\.\d{3,}")


def svg(figure: Figure, slug: str, title: str, text: str) -> Markup:
    """Return a figure as inline SVG.

    Args:
        figure: What is drawn.
        slug: Begins every id; two figures of a page have different ones.
        title: Its name.
        text: What a reader who cannot see it needs to know.
    """
    buffer = io.BytesIO()
    with style(), mpl.rc_context({"svg.hashsalt": slug}):
        figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None})
    text_of_figure = buffer.getvalue().decode("utf-8")
    used = set(re.findall(r'(?:url\(|href=")#([^)"]+)', text_of_figure))
    root = ET.fromstring(_shortened(text_of_figure))
    _tidy(root)
    for node in root.iter():
        _adapt(node, slug, used)
    for node in root.iter("g"):
        _hoist(node)
    for name in ("width", "height", "version"):
        root.attrib.pop(name, None)
    root.attrib |= {"class": "figure", "role": "img", "aria-labelledby": f"{slug}-t {slug}-d"}
    for place, (tag, content) in enumerate((("title", title), ("desc", text))):
        node = ET.Element(tag, {"id": f"{slug}-{tag[0]}"})
        node.text = content
        root.insert(place, node)
    return Markup(ET.tostring(root, encoding="unicode"))


def _shortened(text: str) -> str:
    """Return the figure in the page's colours, without what repeats or no eye can see."""
    for role, color in PALETTE.items():
        text = text.replace(color, "currentColor" if role == "ink" else f"var(--{role})")
    text = text.replace("font-family: 'DejaVu Sans'; ", "")
    return re.sub(r'(?<= d=")[^"]*|(?<= [xy]=")[^"]*', lambda found: _rounded(found[0]), text)


def _rounded(path: str) -> str:
    """Round coordinates, which are points: a tenth of one is less than a pixel."""
    path = _LONG.sub(lambda number: f"{float(number[0]):.{1 + (len(number[0]) < 8)}f}", path)
    return " ".join(path.split())


def _tidy(root: ET.Element) -> None:
    """Take away namespaces, which HTML does without, the figure's own style sheet, and blanks."""
    for node in root.iter():
        node.tag = node.tag.rpartition("}")[2]
        node.tail = None
        if node.text and not node.text.strip():
            node.text = None
    for parent in list(root.iter()):
        for child in list(parent):
            # The style sheet of the figure would apply to the whole page.
            if child.tag in {"metadata", "style"}:
                parent.remove(child)


def _hoist(group: ET.Element) -> None:
    """Move a style that all children share to their group."""
    styles = {child.get("style") for child in group if child.tag != "defs"}
    if len(group) > 2 and len(styles) == 1 and None not in styles and not group.get("style"):
        group.set("style", str(styles.pop()))
        for child in group:
            child.attrib.pop("style", None)


def _adapt(node: ET.Element, slug: str, used: set[str]) -> None:
    name = node.attrib.pop("id", None)
    if name in used:
        node.set("id", f"{slug}-{name}")
    target = node.attrib.pop(f"{{{_XLINK}}}href", None)
    if target:
        node.set("href", f"#{slug}-{target[1:]}")
    # what is drawn stays within the axes by itself
    node.attrib.pop("clip-path", None)
    if "url(#" in (style_of := node.get("style", "")):
        node.set("style", style_of.replace("url(#", f"url(#{slug}-"))
    if "url(#" in (fill := node.get("fill", "")):
        node.set("fill", fill.replace("url(#", f"url(#{slug}-"))
