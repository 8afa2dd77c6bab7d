"""
A plotly figure as a page's script draws it.
"""

from __future__ import annotations

import json
from typing import Any


def figure_document(figure: Any | None) -> bytes | None:
    """
    The figure as JSON, without its title, which the page writes itself; None for none.

    `{title, note, height_px, narrow_names, data, layout}`.
    """
    if figure is None:
        return None
    meta = dict(figure.layout.meta or {})
    spec = json.loads(figure.update_layout(title=None, meta=None).to_json())
    height_px = spec["layout"].pop("height", 400)
    if meta.get("title"):
        margin = spec["layout"].setdefault("margin", {})
        margin["t"] = min(margin.get("t", 40), 40)
    document = {
        "title": meta.get("title", ""),
        "note": meta.get("note", ""),
        "height_px": height_px,
        "narrow_names": meta.get("narrow_names"),
        "data": spec["data"],
        "layout": spec["layout"],
    }
    return json.dumps(document, ensure_ascii=False, separators=(",", ":")).encode()
