"""The zoo's page in a real browser, where one is installed: readable on a phone, and its buttons copy."""

from pathlib import Path

import pytest
from browser import Browser, find_browser

from dettriton import zoo
from dettriton.zoo._matrix import Matrix
from dettriton.zoo._page_parts import frame
from dettriton.zoo._site import write_site

PHONE, DESKTOP = 360, 1280
RESULTS = sorted((Path(__file__).parents[2] / "bench" / "results").glob("environments-*.json"))

TOO_WIDE = """[...document.querySelectorAll('body *')].filter(e =>
    e.getClientRects().length && e.getBoundingClientRect().right > innerWidth + 1
    && !e.closest('pre') && !e.closest('.wide') && !e.classList.contains('hidden')).map(e => e.outerHTML.slice(0, 80))"""
TOO_SMALL = """[...document.querySelectorAll('button')].filter(b =>
    b.getClientRects().length && b.getBoundingClientRect().height < 43).length"""
COPIED = """(async () => {
  const wrong = [], buttons = [...document.querySelectorAll('button[data-copy]')];
  for (const button of buttons) {
    button.click();
    for (let i = 0; i < 100 && button.textContent !== 'Copied'; i++) await new Promise(r => setTimeout(r, 10));
    const found = await navigator.clipboard.readText();
    if (found !== button.dataset.copy || button.textContent !== 'Copied') wrong.push([button.dataset.copy, found]);
  }
  return {count: buttons.length, wrong};
})()"""


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    path = find_browser()
    if path is None:
        pytest.skip("no Chromium is installed")
    found = Browser(path, tmp_path_factory.mktemp("profile"))
    yield found
    found.close()


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    return write_site(tmp_path_factory.mktemp("site"), environments=RESULTS[0]).as_uri()


@pytest.mark.parametrize("width", [PHONE, DESKTOP])
def test_verify_nothing_is_wider_than_the_window(browser, page, width):
    browser.problems.clear()
    browser.open(page, width)
    assert browser.evaluate(TOO_WIDE) == []
    assert browser.evaluate("document.documentElement.scrollWidth <= innerWidth")
    assert browser.problems == []  # neither its own script nor its own style was refused


def test_verify_what_is_too_wide_is_found(browser, tmp_path):
    wide = tmp_path / "wide.html"
    wide.write_text(frame("wide", "<p><span style='display:inline-block;width:50rem'>x</span></p>"))
    browser.open(wide.as_uri(), PHONE)
    assert browser.evaluate(TOO_WIDE) == []  # the page's own policy refuses a style that is not its own
    wide.write_text(frame("wide", f"<table><tr><td>{'<td>column'.join(['cell'] * 30)}</table>"))
    browser.open(wide.as_uri(), PHONE)
    assert browser.evaluate(TOO_WIDE) != []


def test_verify_buttons_can_be_hit_by_a_thumb(browser, page):
    browser.open(page, PHONE)
    assert browser.evaluate(TOO_SMALL) == 0
    browser.open(page, DESKTOP)
    assert browser.evaluate(TOO_SMALL) > 0


def test_verify_every_button_copies_what_it_says(browser, page):
    browser.open(page, PHONE)
    browser.call("Browser.grantPermissions", permissions=["clipboardReadWrite", "clipboardSanitizedWrite"])
    copied = browser.evaluate(COPIED)
    assert copied["wrong"] == []
    assert copied["count"] >= 6 * len(zoo.names())


def test_verify_every_released_hash_is_on_the_page_and_every_link_leads_somewhere(browser, page):
    browser.open(page, DESKTOP)
    text = browser.evaluate("document.body.innerText")
    for name in zoo.names():
        row = zoo.entry(name)
        assert row.weights_digest in text and row.file_sha256 in text
    dangling = "[...document.querySelectorAll('a[href^=\"#\"]')].filter(a => !document.getElementById(a.hash.slice(1)))"
    assert browser.evaluate(f"{dangling}.length") == 0
    assert Matrix(RESULTS[0]).machine in text
