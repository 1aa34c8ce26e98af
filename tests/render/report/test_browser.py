"""The page in headless Chromium: it draws, asks nobody for anything, and works by keys, on a phone and on paper.

Skipped where Chromium is not installed (Debian: ``apt install chromium``).
"""

import re
import shutil
from pathlib import Path

import pytest
from msgspec.structs import replace

from planner.render.report.page import html_report

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
if CHROMIUM is None:
    pytest.skip("needs Chromium: apt install chromium", allow_module_level=True)

FLAGS = (
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync",
)  # fmt: skip
DESK, PHONE = {"width": 1440, "height": 900}, {"width": 360, "height": 740}


@pytest.fixture(scope="module")
def browser():
    """One headless Chromium for all tests of this module."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as driver:
        started = driver.chromium.launch(executable_path=CHROMIUM, args=list(FLAGS))
        yield started
        started.close()


@pytest.fixture(scope="module")
def axe():
    """The source of axe-core, as a package on this disk carries it."""
    import axe_playwright_python

    return (Path(axe_playwright_python.__file__).parent / "axe.min.js").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def pages(tmp_path_factory, sample, two_cards, nothing):
    """One plan, three plans, and one full of hostile words, as files."""
    folder = tmp_path_factory.mktemp("pages")
    hostile = '"><img src=x onerror=document.title="broken"></script><script>document.title="broken"</script>'
    named = replace(sample.chosen, model=hostile)
    plans = {
        "one": [sample],
        "three": [sample, two_cards, nothing],
        "hostile": [replace(sample, chosen=named, warnings=(hostile, "see javascript:alert(1)"))],
    }
    for name, told in plans.items():
        (folder / f"{name}.html").write_text(html_report(told), encoding="utf-8")
    return {name: (folder / f"{name}.html").as_uri() for name in plans}


class Watched:
    """A page of the browser with everything that it said and asked for."""

    def __init__(self, browser, address, *, viewport=DESK, scheme="light", **options):
        self.context = browser.new_context(viewport=viewport, color_scheme=scheme, **options)
        self.said, self.asked = [], []
        self.page = self.context.new_page()
        self.page.on("console", lambda message: self.said.append(message.text))
        self.page.on("pageerror", lambda error: self.said.append(str(error)))
        self.page.on("request", lambda request: self.asked.append(request.url))
        self.page.goto(address)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.context.close()


@pytest.mark.parametrize("name", ["one", "three", "hostile"])
@pytest.mark.parametrize("viewport", [DESK, PHONE], ids=["desk", "phone"])
def test_the_page_is_quiet(browser, pages, name, viewport):
    """No error, no request but for the file itself, nothing wider than the screen."""
    with Watched(browser, pages[name], viewport=viewport) as watched:
        assert watched.said == []
        assert watched.asked == [pages[name]]
        assert watched.page.title() != "broken"
        assert watched.page.evaluate("document.documentElement.scrollWidth") <= viewport["width"]
        shown = watched.page.locator("svg.chart:visible").count()
        assert shown == watched.page.locator("svg.chart").count() // 2 > 0


@pytest.mark.parametrize(
    ("name", "scheme", "viewport"),
    [("three", "light", DESK), ("one", "dark", DESK), ("one", "light", PHONE), ("one", "dark", PHONE)],
    ids=["desk", "desk in the dark", "phone", "phone in the dark"],
)
def test_axe_finds_nothing(browser, pages, axe, name, scheme, viewport):
    """No rule of axe-core is broken, contrast included, in either theme and on either screen."""
    # axe is put into the page from outside, which the page's own policy would forbid.
    with Watched(browser, pages[name], viewport=viewport, scheme=scheme, bypass_csp=True) as watched:
        watched.page.evaluate("document.querySelectorAll('details').forEach(each => { each.open = true })")
        watched.page.evaluate(axe)
        found = watched.page.evaluate("axe.run()")
        broken = [(rule["id"], [node["html"] for node in rule["nodes"]]) for rule in found["violations"]]
        assert broken == []
        assert "color-contrast" in [rule["id"] for rule in found["passes"]]


def test_axe_would_find_something(browser, pages, axe):
    """The check before is able to fail: grey on grey is found."""
    with Watched(browser, pages["one"], bypass_csp=True) as watched:
        watched.page.evaluate("document.querySelector('h1').style.color = '#eee'")
        watched.page.evaluate(axe)
        assert "color-contrast" in [rule["id"] for rule in watched.page.evaluate("axe.run()")["violations"]]


def contrast(first, second):
    """The contrast of two colours by WCAG 2.2, from their ``rgb()``."""

    def luminance(colour):
        parts = [int(part) / 255 for part in re.findall(r"\d+", colour)[:3]]
        linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    lighter, darker = sorted((luminance(first), luminance(second)), reverse=True)
    return (lighter + 0.05) / (darker + 0.05)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_drawings_can_be_seen_in_both_themes(browser, pages, scheme):
    """What axe does not judge inside drawings: words have a contrast of 4.5, parts and lines one of 3."""
    with Watched(browser, pages["three"], scheme=scheme) as watched:
        page = watched.page

        def colour(name):
            return page.evaluate(
                "name => { const probe = document.createElement('i'); probe.className = `f-${name}`;"
                "document.body.append(probe); return getComputedStyle(probe).fill }",
                name,
            )

        paper = page.evaluate("getComputedStyle(document.body).backgroundColor")
        for words in ("ink", "muted", "warn"):
            assert contrast(colour(words), paper) >= 4.5
        for part in ("accent", "other", "weights", "cache", "compute", "overhead", "server", "reserve"):
            assert contrast(colour(part), paper) >= 3
        assert contrast(colour("onbar"), colour("weights")) >= 4.5


def test_every_mark_is_reached_by_the_tab_key(browser, pages):
    """In the order of the table, each with its details in sight, and Enter leads to its row."""
    with Watched(browser, pages["one"]) as watched:
        page = watched.page
        marks = page.locator("svg.wide a.point")
        names = [mark.get_attribute("aria-label") for mark in marks.all()]
        assert len(names) >= 3
        marks.first.focus()
        for place, name in enumerate(names):
            focused = page.evaluate("document.activeElement.getAttribute('aria-label')")
            assert focused == name
            shown = [each.inner_text() for each in page.locator(".details p:visible").all()]
            assert shown == [name]
            if place < len(names) - 1:
                page.keyboard.press("Tab")
        page.keyboard.press("Enter")
        assert page.evaluate("document.querySelector('tr:target th').innerText").startswith(f"{len(names)}.")
        reached = set()
        page.evaluate("document.activeElement.blur(); window.scrollTo(0, 0)")
        for _ in range(60):
            page.keyboard.press("Tab")
            reached.add(page.evaluate("document.activeElement.tagName"))
        assert {"A", "a", "SUMMARY", "BUTTON", "PRE"} <= reached | {"a"}


def test_pointing_at_a_mark_shows_its_details(browser, pages):
    """The mouse finds what the keys find."""
    with Watched(browser, pages["one"]) as watched:
        assert watched.page.locator(".details .hint").is_visible()
        mark = watched.page.locator("svg.wide a.point").last
        mark.locator("circle.hit").hover()
        shown = [each.inner_text() for each in watched.page.locator(".details p:visible").all()]
        assert shown == [mark.get_attribute("aria-label")]


def test_the_button_copies_the_command_and_says_so(browser, pages, sample):
    """What is in the clipboard is what stands in the page; a screen reader hears that it is."""
    with Watched(browser, pages["one"], permissions=["clipboard-read", "clipboard-write"]) as watched:
        page = watched.page
        page.get_by_role("button", name="Copy").nth(1).click()
        status = page.locator("#plan-1-command-2 ~ [role=status]")
        status.get_by_text("Copied").wait_for(timeout=5000)
        assert page.evaluate("navigator.clipboard.readText()") == sample.commands.llama_cpp_python.strip()


def test_without_scripts_the_page_is_whole(browser, pages):
    """Every section is there, no button that would do nothing, and a way to select a command."""
    with Watched(browser, pages["one"], java_script_enabled=False) as watched:
        page = watched.page
        assert page.locator("button:visible").count() == 0
        assert page.get_by_text("Scripts are off").is_visible()
        assert page.locator("svg.chart:visible").count() >= 3
        assert page.locator("#plan-1-command-1").is_visible()


def test_the_page_prints(browser, pages):
    """To a PDF of a few pages, light even where the screen is dark, with what is folded on a screen unfolded."""
    with Watched(browser, pages["one"], scheme="dark") as watched:
        page = watched.page
        pdf = page.pdf(format="A4")
        assert pdf.startswith(b"%PDF")
        assert 2 <= len(re.findall(rb"/Type\s*/Page\b", pdf)) <= 12
        page.emulate_media(media="print")
        assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
        assert page.locator("details dl dt").first.is_visible()
        assert page.locator("button:visible").count() == 0


def test_nothing_is_tiny_on_a_phone(browser, pages):
    """Every word on a screen of 360 pixels is at least 11 pixels high, in drawings, too."""
    with Watched(browser, pages["three"], viewport=PHONE) as watched:
        smallest = watched.page.evaluate(
            """() => Math.min(...[...document.querySelectorAll('body *')].filter(each => each.getClientRects().length
                && [...each.childNodes].some(node => node.nodeType === 3 && node.data.trim())).map(each => {
                    const drawing = each.closest('svg');
                    const scale = drawing ? drawing.getBoundingClientRect().width / drawing.viewBox.baseVal.width : 1;
                    return parseFloat(getComputedStyle(each).fontSize) * scale;
                }))"""
        )
        assert smallest >= 11
