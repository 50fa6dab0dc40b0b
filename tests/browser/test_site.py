"""A reader opens the site from a folder: no server, no network, often no mouse."""

import contextlib
import itertools
from collections.abc import Iterator

import pytest

pytest.importorskip("playwright", reason="Playwright is not installed.")
pytest.importorskip("sphinx", reason='The site needs the extra "site".')

from built_site import built_site
from playwright.sync_api import Browser, Locator, Page, Route, expect

import qwen_course as qc

from .lab import SECONDS, tab_to

pytestmark = [pytest.mark.browser, pytest.mark.timeout(400)]

DESKTOP, PHONE = (1280, 900), (390, 844)
PAGES = (
    *("index", "calculator", "catalogue", "glossary", "troubleshooting", "exercises"),
    *("models", "reference", "teachers", "search", "reference/memory"),
    *("notebooks/03_thinking_mode", "notebooks/05_quantization"),
    *("exercises/03_thinking_mode", "workshop/monitoring/README"),
)


@pytest.fixture(scope="module")
def site() -> str:
    """The address of the built site's folder, with a slash at its end."""
    return f"{built_site().as_uri()}/"


class Reader:
    """A browser's window on the site, and what went wrong in it."""

    def __init__(self, browser: Browser, site: str, size: tuple[int, int]) -> None:
        viewport = {"width": size[0], "height": size[1]}
        self.context = browser.new_context(viewport=viewport)
        self.context.set_default_timeout(60 * SECONDS)
        self.context.route("**/*", self.watch)
        self.page = self.context.new_page()
        self.page.on("pageerror", lambda error: self.errors.append(str(error)))
        self.site, self.elsewhere, self.errors = site, [], []

    def watch(self, route: Route) -> None:
        """Let through what lies in the folder; note and refuse everything else."""
        url = route.request.url
        if url.startswith((self.site, "data:", "blob:")):
            route.continue_()
        else:
            self.elsewhere.append(url)
            route.abort()

    def open(self, page: str) -> Page:
        self.page.goto(self.site + page)
        return self.page


@pytest.fixture
def reader(browser: Browser, site: str) -> Iterator[Reader]:
    yield from reading(browser, site, DESKTOP)


@pytest.fixture
def phone(browser: Browser, site: str) -> Iterator[Reader]:
    yield from reading(browser, site, PHONE)


def reading(browser: Browser, site: str, size: tuple[int, int]) -> Iterator[Reader]:
    reader = Reader(browser, site, size)
    yield reader
    reader.context.close()
    assert reader.elsewhere == [], "asked for what is not in the folder"
    assert reader.errors == []


def test_on_a_phone_no_page_is_wider_than_the_screen(phone: Reader):
    """Nothing is loaded from elsewhere and no script fails: `reading` looks."""
    for name in PAGES:
        page = phone.open(f"{name}.html")
        width = page.evaluate("document.documentElement.scrollWidth")
        assert width <= PHONE[0], name


@pytest.mark.parametrize(
    ("words", "found"),
    [
        ("quantization", "05 · Quantization: fewer bits, and what they cost"),
        ("KV cache", "Glossary"),
        ("权重", "06 · "),
        ("güneş", "02 · "),
    ],
)
def test_the_search_finds_words_without_a_server(reader: Reader, words, found):
    page = reader.open(f"search.html?q={words}")
    results = page.locator("#search-results li a")
    expect(results.filter(has_text=found).first).to_be_visible()


def test_the_search_is_reached_and_used_by_keyboard(reader: Reader):
    page = reader.open("index.html")
    page.keyboard.press("Control+k")
    page.keyboard.type("glossary")
    page.keyboard.press("Enter")
    expect(page.locator("#search-results li a").first).to_be_visible()


def test_the_calculator_counts_every_checkpoint_to_the_byte(reader: Reader):
    known = []
    for checkpoint in qc.catalog.models():
        with contextlib.suppress(ValueError):  # the catalogue lacks its dimensions
            known.append(qc.memory.dimensions(checkpoint).name)
    cases = list(
        itertools.product(known, qc.memory.PRECISIONS, (1, 4097, 1_010_000), (1, 256))
    )
    page = reader.open("calculator.html")
    counted = page.evaluate(
        "cases => cases.map(one => Object.values(estimate(...one)))", cases
    )
    by_name = {name: qc.catalog.get(name) for name in known}
    wanted = [qc.memory.estimate(by_name[name], *rest) for name, *rest in cases]
    assert counted == [
        [one.weights, one.kv_cache, one.activations, one.total] for one in wanted
    ]
    offered = page.locator("#calculator [name=model] option").all_inner_texts()
    assert sorted(offered) == sorted(known)


def test_the_calculator_answers_what_is_typed(reader: Reader):
    page = reader.open("calculator.html#Qwen3-0.6B")
    says = page.locator("#calculator-says")
    expect(says).to_contain_text("Qwen3-0.6B in bf16")
    expect(says).to_contain_text("It fits")
    choice(page, "Model").select_option("Qwen3-32B")
    choice(page, "Precision").select_option("nf4")
    page.get_by_label("Conversations at once").fill("8")
    page.get_by_label("Context").fill("32768")
    total = qc.memory.estimate("Qwen3-32B", "nf4", 32768, 8).total
    expect(says).to_contain_text(f"takes {qc.memory.gib(total)}. It is")
    rows = page.locator("#calculator-parts tbody tr")
    expect(rows.last).to_contain_text(f"{total:,}")
    page.get_by_label("Context").fill("0")
    expect(says).to_contain_text("Context, tokens:")


def choice(page: Page, label: str) -> Locator:
    return page.get_by_role("combobox", name=label, exact=True)


def names(page: Page) -> list[str]:
    shown = page.locator("#checkpoints tbody tr:not([hidden]) th a")
    return shown.all_inner_texts()


def test_the_catalogue_is_sorted_by_keyboard_the_unknown_last(reader: Reader):
    page = reader.open("catalogue.html")
    by_size = sorted({c.total_parameters for c in qc.catalog.models()})
    head = page.get_by_role("columnheader", name="parameters")
    head.get_by_role("button").focus()
    page.keyboard.press("Enter")
    expect(head).to_have_attribute("aria-sort", "ascending")
    first = qc.catalog.get(names(page)[0])
    assert first.total_parameters == by_size[0]
    page.keyboard.press("Space")
    expect(head).to_have_attribute("aria-sort", "descending")
    assert qc.catalog.get(names(page)[0]).total_parameters == by_size[-1]

    released = page.get_by_role("columnheader", name="released")
    for _ in range(2):
        released.get_by_role("button").press("Enter")
        dates = [qc.catalog.get(name).released or "unknown" for name in names(page)]
        known = [one for one in dates if one != "unknown"]
        assert dates == known + ["unknown"] * (len(dates) - len(known))
        assert known in (sorted(known), sorted(known, reverse=True))
    assert page.locator("#checkpoints th[aria-sort]").count() == 1


def test_the_catalogue_is_filtered_and_says_how_many_are_left(reader: Reader):
    page = reader.open("catalogue.html")
    count = page.locator("#catalogue-count")
    choice(page, "Thinking").select_option("hybrid")
    hybrid = {c.name for c in qc.catalog.models(thinking="hybrid")}
    assert set(names(page)) == hybrid
    expect(count).to_have_text(
        f"{len(hybrid)} of {len(qc.catalog.models())} checkpoints"
    )
    page.get_by_label("Name").fill("a3b")
    assert set(names(page)) == {name for name in hybrid if "a3b" in name.lower()}
    choice(page, "Reads").select_option("audio")
    expect(count).to_contain_text("0 of")
    page.get_by_role("button", name="Show all").press("Enter")
    expect(count).to_contain_text(f"{len(qc.catalog.models())} of")
    choice(page, "Reads").select_option("audio")
    wanted = {c.name for c in qc.catalog.models(modality="audio")}
    assert set(names(page)) == wanted
    choice(page, "Reads").select_option("")
    choice(page, "Licence").select_option("unknown")
    assert set(names(page)) == {c.name for c in qc.catalog.models(licence="unknown")}


FOCUS = """() => {
  const one = document.activeElement;
  const box = one.getBoundingClientRect();
  const style = getComputedStyle(one);
  return {
    name: (one.ariaLabel || one.innerText || one.name || one.tagName).trim(),
    tag: one.tagName,
    visible: box.width > 0 && box.height > 0,
    marked: style.outlineStyle !== "none" || style.boxShadow !== "none",
  };
}"""


@pytest.mark.parametrize(
    "name", ["index", "catalogue", "calculator", "notebooks/03_thinking_mode"]
)
def test_the_keyboard_reaches_a_page_in_order_and_shows_where_it_is(reader, name):
    page = reader.open(f"{name}.html")
    stops = []
    for _ in range(60):
        page.keyboard.press("Tab")
        stops.append(page.evaluate(FOCUS))
    assert stops[0]["name"] == "Skip to main content"
    lost = [stop for stop in stops if not (stop["visible"] and stop["marked"])]
    assert not [stop for stop in lost if stop["tag"] != "BODY"]
    met = [stop["name"] for stop in stops]
    order = [met.index(one) for one in ("Search", "00 Start here", "Glossary")]
    assert order == sorted(order)


def test_the_skip_link_leads_to_the_text_and_on_to_the_controls(reader: Reader):
    page = reader.open("catalogue.html")
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    head = page.get_by_role("columnheader", name="checkpoint").get_by_role("button")
    tab_to(page, head, at_most=20)
    tab_to(page, page.locator("#checkpoints tbody a").first, at_most=12)


def test_on_a_phone_the_navigation_opens_and_closes_by_keyboard(phone: Reader):
    page = phone.open("index.html")
    page.locator("button.primary-toggle").press("Enter")
    dialog = page.locator("#pst-primary-sidebar-modal")
    expect(dialog).to_be_visible()
    page.keyboard.press("Escape")
    expect(dialog).to_be_hidden()
    page.locator("button.primary-toggle").press("Enter")
    dialog.get_by_role("link", name="03 Thinking mode").press("Enter")
    expect(page.locator("h1").last).to_contain_text("Thinking mode")


def test_a_page_is_read_without_scripts(browser: Browser, site: str):
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto(f"{site}catalogue.html")
    rows = page.locator("#checkpoints tbody tr")
    expect(rows).to_have_count(len(qc.catalog.models()))
    page.goto(f"{site}calculator.html")
    expect(page.get_by_text("switched off here")).to_be_visible()
    context.close()
