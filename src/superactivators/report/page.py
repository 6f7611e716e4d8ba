"""One HTML file: the page's modules, its style and a study's results, with nothing fetched from anywhere."""

from __future__ import annotations

import base64
import html
import json
import re
from importlib.resources import files

from superactivators.report.inputs import ReportInputs
from superactivators.report.json_values import embeddable
from superactivators.report.payload import build_payload

__all__ = ["ReportInputs", "render_page", "render_report"]

PREFIX = "superactivators/"
"""Modules import each other as ``superactivators/<file>``, which the page's import map resolves."""


def render_report(inputs: ReportInputs) -> str:
    """Make the report of a study.

    Parameters
    ----------
    inputs : ReportInputs

    Returns
    -------
    str
        A whole HTML document that works from a plain file.

    Examples
    --------
    >>> Path("index.html").write_text(render_report(inputs), encoding="utf-8")  # doctest: +SKIP
    """
    return render_page(inputs.title, embeddable(build_payload(inputs)))


def render_page(title: str, payload: str) -> str:
    """Fill the page's template with a title and with JSON that is safe to embed."""
    parts = {
        "title": html.escape(title),
        "style": "\n".join(_assets("css").values()),
        "modules": json.dumps({"imports": _module_urls()}),
        "payload": payload,
        "main": f"{PREFIX}main.js",
    }
    template = _asset("page.html")
    # One pass, so that nothing in the payload is ever taken for a placeholder.
    return re.sub(r"\{\{(\w+)\}\}", lambda match: parts[match[1]], template)


def _asset(name: str) -> str:
    return (files("superactivators.report") / "assets" / name).read_text(encoding="utf-8")


def _assets(suffix: str) -> dict[str, str]:
    folder = files("superactivators.report") / "assets"
    names = sorted(entry.name for entry in folder.iterdir() if entry.name.endswith(f".{suffix}"))
    return {name: _asset(name) for name in names}


def _module_urls() -> dict[str, str]:
    """Import map of the page: every module as a data URL, because a page opened as a file cannot fetch its modules."""
    return {
        PREFIX + name: "data:text/javascript;base64," + base64.b64encode(source.encode()).decode("ascii")
        for name, source in _assets("js").items()
    }
