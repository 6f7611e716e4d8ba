"""The page is one file that asks nobody for anything, and no text in it can become markup."""

from __future__ import annotations

import base64
import html
import json
import re
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path

import pytest

from report.planted import planted
from superactivators.report.inputs import ReportInputs
from superactivators.report.page import render_report
from superactivators.report.payload import build_payload

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
HOSTILE = "</script><img src=x onerror=alert(1)>{{main}}"


class Page(HTMLParser):
    """Elements with their attributes, and the text of scripts."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.scripts: dict[str, str] = {}
        self._open = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag == "script":
            self._open = dict(attrs).get("id") or dict(attrs).get("type") or ""

    def handle_endtag(self, tag: str) -> None:
        if tag == "script":
            self._open = ""

    def handle_data(self, data: str) -> None:
        if self._open:
            self.scripts[self._open] = self.scripts.get(self._open, "") + data


@pytest.fixture(scope="module")
def page(text_study: ReportInputs) -> str:
    return render_report(text_study)


def test_payload_round_trips_through_the_page(page: str, text_study: ReportInputs) -> None:
    assert json.loads(Page(page).scripts["payload"]) == build_payload(text_study)


def test_nothing_is_fetched(page: str) -> None:
    for tag, attributes in Page(page).elements:
        for name in ("src", "href", "srcset", "data", "action"):
            address = attributes.get(name)
            assert not address or address.startswith(("#", "data:")), (tag, name, address)
    policy = next(a["content"] for tag, a in Page(page).elements if a.get("http-equiv") == "Content-Security-Policy")
    assert "default-src 'none'" in policy
    assert not re.search(r"@import|url\(", page)


def test_every_import_is_in_the_import_map(page: str) -> None:
    modules = json.loads(Page(page).scripts["importmap"])["imports"]
    assert "superactivators/main.js" in modules
    for name, address in modules.items():
        source = base64.b64decode(address.removeprefix("data:text/javascript;base64,")).decode()
        imported = re.findall(r'from "([^"]+)"', source)
        assert set(imported) <= set(modules), name
        assert "innerHTML" not in source
        assert not re.search(r"\bfetch\(|XMLHttpRequest|https?://(?!www\.w3\.org/2000/svg)", source), name


@pytest.fixture(scope="module")
def hostile() -> str:
    return render_report(planted("text", concepts=("joy", HOSTILE), resamples=0, title=HOSTILE))


def test_hostile_names_stay_text(hostile: str) -> None:
    parsed = Page(hostile)
    assert "img" not in {tag for tag, _ in parsed.elements}
    assert HOSTILE in json.loads(parsed.scripts["payload"])["concepts"]
    assert json.loads(parsed.scripts["payload"])["title"] == HOSTILE


def opened(page: str, folder: Path, address: str = "") -> tuple[str, list[str]]:
    """DOM after the page has run, and what it logged."""
    file = folder / "index.html"
    file.write_text(page, encoding="utf-8")
    command = [
        *(str(CHROMIUM), "--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking"),
        *("--disable-component-update", "--disable-sync", "--no-first-run", f"--user-data-dir={folder / 'profile'}"),
        *("--virtual-time-budget=4000", "--window-size=1280,2000", "--enable-logging=stderr", "--dump-dom"),
        file.as_uri() + address,
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    return done.stdout, [line for line in done.stderr.splitlines() if "CONSOLE" in line]


needs_browser = pytest.mark.skipif(CHROMIUM is None, reason="no chromium")


@needs_browser
def test_text_report_runs_without_a_word_to_the_console(page: str, tmp_path: Path) -> None:
    dom, logged = opened(page, tmp_path, "#concept=a%20dry%20wit")
    assert logged == []
    for piece in ('id="methods"', 'id="deltas"', 'id="layers"', 'id="concepts"', 'id="notes"', "heat-text", "whisker"):
        assert piece in dom
    assert re.search(r'id="concept-title"[^>]*>a dry wit<', dom)
    assert dom.count('class="token') > 20
    assert "NaN" not in dom.split('id="page"')[1]
    assert "undefined" not in dom.split('id="page"')[1]


@needs_browser
def test_image_report_runs_without_a_word_to_the_console(image_study: ReportInputs, tmp_path: Path) -> None:
    dom, logged = opened(render_report(image_study), tmp_path)
    assert logged == []
    assert dom.count("<canvas") >= 4


@needs_browser
def test_hostile_names_are_shown_as_text(hostile: str, tmp_path: Path) -> None:
    dom, logged = opened(hostile, tmp_path)
    assert logged == []
    assert "<img" not in dom
    assert "&lt;/script&gt;&lt;img src=x onerror=alert(1)&gt;{{main}}" in dom


@needs_browser
def test_study_of_sample_vectors_only_runs(tmp_path: Path) -> None:
    dom, logged = opened(render_report(planted("text", methods=("cls", "max"), resamples=0)), tmp_path)
    assert logged == []
    assert "No examples" in dom


INTERACT = """
<script type="module">
const wait = () => new Promise((resolve) => setTimeout(resolve, 60));
const find = (selector) => document.querySelector(selector);
const told = {};
await wait();
const token = find(".heat-text[tabindex] .token");
token.dispatchEvent(new PointerEvent("pointerover", { bubbles: true }));
told.hover = find(".readout.active")?.textContent ?? "";
find(".heat-text[tabindex]").dispatchEvent(new PointerEvent("pointerleave"));
told.left = document.querySelectorAll(".readout.active").length;
find(".heat-text[tabindex]").dispatchEvent(new KeyboardEvent("keydown", { key: "ArrowRight" }));
told.key = find(".readout.active")?.textContent ?? "";
const names = () => [...document.querySelectorAll("#concepts tbody th")].map((cell) => cell.textContent);
const order = names();
const head = [...document.querySelectorAll("#concepts thead button")].find((one) => one.textContent === "F1");
head.click();
told.turned = JSON.stringify(names()) === JSON.stringify(order.toReversed());
told.sort = find("#concepts th[aria-sort]").getAttribute("aria-sort");
const before = find(".finding").textContent;
find("input[value=mean]").click();
find("input[value=macro]").click();
told.finding = find(".finding").textContent;
location.hash = "#concept=fear";
await wait();
told.concept = find("#concept-title").textContent;
const slider = find("#deltas input[type=range]");
slider.value = 0;
slider.dispatchEvent(new Event("input"));
told.site = find("#deltas output").textContent;
find(".bar .quiet").click();
told.theme = document.documentElement.dataset.theme;
const link = find("#concepts .quiet");
link.addEventListener("click", (event) => event.preventDefault());
link.click();
told.csv = decodeURIComponent(link.href.split(",").slice(1).join(",")).split("\\n").length;
told.wide = document.documentElement.scrollWidth - innerWidth;
document.body.append(Object.assign(document.createElement("pre"), { id: "told", textContent: JSON.stringify(told) }));
</script>
"""


@needs_browser
def test_every_control_does_its_work(page: str, text_payload: dict, tmp_path: Path) -> None:
    dom, logged = opened(page.replace("</body>", INTERACT + "</body>"), tmp_path)
    assert logged == []
    told = json.loads(html.unescape(re.search(r'<pre id="told">(.*?)</pre>', dom, re.DOTALL)[1]))
    assert re.search(r"activation .+, threshold .+", told["hover"])
    assert re.search(r"activation .+, threshold .+", told["key"])
    assert told["left"] == 0
    assert told["turned"]
    assert told["sort"] == "ascending"
    assert told["finding"] == text_payload["finding"]["macro"]["mean"]["headline"]
    assert (told["concept"], told["site"], told["theme"]) == ("fear", "embed", "light")
    assert told["csv"] == len(text_payload["concepts"]) + 2
    assert told["wide"] <= 0
