# Copyright (c) 2026, the vmfleet.suspend authors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The page of a fleet's report, in a real browser."""

from __future__ import annotations

import pytest

from ansible_collections.vmfleet.suspend.plugins.plugin_utils._fleet_page import render_page
from ansible_collections.vmfleet.suspend.tests.support.browser import Browser, browser_missing
from ansible_collections.vmfleet.suspend.tests.support.fleet_reports import (
    a_large_suspend,
    a_plan,
    a_suspend_with_failures,
    a_window,
)

HOSTILE = "<script>document.title='run'</script><img src=http://192.0.2.1/x onerror=alert(1)>"
REPORTS = {
    "plan": a_plan(),
    "suspend": a_suspend_with_failures(HOSTILE),
    "window": a_window(),
    "large": a_large_suspend(),
}
SMALL = ["plan", "suspend", "window"]
# WCAG 2.2, success criteria 1.4.3 and 1.4.11.
TEXT_CONTRAST, SHAPE_CONTRAST = 4.5, 3.0


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    reason = browser_missing()
    if reason is not None:
        pytest.fail(reason)
    started = Browser(tmp_path_factory.mktemp("profile"))
    yield started
    started.close()


@pytest.fixture(scope="module")
def pages(tmp_path_factory):
    directory = tmp_path_factory.mktemp("pages")
    found = {name: directory / f"{name}.html" for name in REPORTS}
    for name, page in found.items():
        page.write_text(render_page(REPORTS[name]))
    return found


@pytest.mark.parametrize("name", REPORTS)
def test_a_telephone_needs_no_scrolling_sideways(browser, pages, name):
    browser.show(pages[name], 360)
    assert browser.tell("innerWidth") == 360
    assert browser.tell("document.documentElement.scrollWidth") <= 360


@pytest.mark.parametrize("width", [360, 768, 1200])
@pytest.mark.parametrize("name", SMALL)
def test_nothing_is_cut_off_at_the_side(browser, pages, name, width):
    browser.show(pages[name], width)
    assert browser.tell("document.documentElement.scrollWidth") <= width
    beyond = browser.tell(
        "[...document.querySelectorAll('h1, h3, p, li, dd, .row > *, .knobs td')]"
        f".filter(one => one.getBoundingClientRect().right > {width})"
        ".map(one => one.outerHTML.slice(0, 200))"
    )
    assert beyond == []


@pytest.mark.parametrize("name", REPORTS)
def test_nothing_is_loaded_and_nothing_that_hosts_told_is_run(browser, pages, name):
    browser.show(pages[name])
    assert browser.asked_for() == [pages[name].as_uri()]
    assert browser.log("browser") == []
    assert browser.tell("document.title") != "run"
    assert (
        browser.tell("document.querySelectorAll('script, img, link, iframe, object').length") == 0
    )


def test_a_hostile_name_is_read_as_it_is(browser, pages):
    browser.show(pages["suspend"])
    assert HOSTILE in browser.tell("document.body.textContent")


def test_failures_stand_first_and_lead_to_their_hosts(browser, pages):
    browser.show(pages["suspend"], 360)
    failed = [host["host"] for host in REPORTS["suspend"]["hosts"] if host["failed"]]
    assert browser.tell("[...document.querySelectorAll('h3 a')].map(a => a.innerText)") == failed
    assert (
        browser.tell(
            "[...document.querySelectorAll('h3 a')].map("
            "a => document.querySelector(a.hash + ' summary b').innerText)"
        )
        == failed
    )
    assert browser.tell("document.querySelector('section').id") == "attention"
    assert browser.tell("document.querySelector('article').getBoundingClientRect().top") < 250
    assert browser.tell("document.querySelectorAll('.host.bad:not([open])').length") == 0


@pytest.mark.parametrize("name", SMALL)
@pytest.mark.parametrize("width", [360, 1200])
def test_one_bar_for_each_host_and_guest_all_on_one_axis(browser, pages, name, width):
    browser.show(pages[name], width)
    hosts = REPORTS[name]["hosts"]
    bars = browser.tell(
        "[...document.querySelectorAll('summary .bar, tr .bar')].map(one => {"
        "const box = one.getBoundingClientRect();"
        "return [one.querySelector('title').textContent, box.left, box.width, box.height]})"
    )
    assert len(bars) == len(hosts) + sum(len(host["guests"]) for host in hosts)
    assert all(title and wide > width / 4 and high >= 20 for title, _left, wide, high in bars)
    assert len({(round(left), round(wide)) for _title, left, wide, _high in bars}) == 1
    scale = browser.tell("document.querySelector('.scale').getBoundingClientRect().left")
    assert round(scale) == round(bars[0][1])


def test_the_time_that_a_guest_did_not_run_is_drawn_from_its_suspend_to_its_resume(browser, pages):
    browser.show(pages["window"])
    left, right = browser.tell(
        "(bar => [bar.querySelector('.suspend'), bar.querySelector('.resume'),"
        " bar.querySelector('.outage')].map(one => one.getBoundingClientRect()))"
        "(document.querySelector('tr .bar')).map((box, i, all) => i < 2"
        " ? [Math.abs(box.left - all[2].left), Math.abs(box.right - all[2].right)][i] : 0)"
        ".slice(0, 2)"
    )
    assert left < 3 and right < 3


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_everything_can_be_read_by_day_and_by_night(browser, pages, dark):
    browser.show(pages["suspend"], dark=dark)
    assert (
        luminance(browser.tell("getComputedStyle(document.body).backgroundColor")) < 0.1
    ) is dark
    texts = browser.tell(
        "[...document.querySelectorAll("
        "'h1, h2, p, small, b, i, dt, dd, li, .state, .cell, .error, .knobs th')]"
        ".map(one => { let under = one; while (getComputedStyle(under).backgroundColor == "
        "'rgba(0, 0, 0, 0)') under = under.parentElement; return [one.className || one.tagName, "
        "getComputedStyle(one).color, getComputedStyle(under).backgroundColor]})"
    )
    assert len(texts) > 50
    poor = {what for what, ink, paper in texts if contrast(ink, paper) < TEXT_CONTRAST}
    assert poor == set()


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("name", SMALL)
def test_every_kind_of_piece_is_explained_and_stands_out(browser, pages, name, dark):
    browser.show(pages[name], dark=dark)
    paper = browser.tell("getComputedStyle(document.body).backgroundColor")
    drawn, explained = (
        dict(
            browser.tell(
                f"[...document.querySelectorAll('{where} > :is(rect, path)')].map(one => {{"
                "const style = getComputedStyle(one);"
                "return [one.classList[0], style.stroke == 'none' ? style.fill : style.stroke]})"
            )
        )
        for where in (".times .bar", ".legend .sample")
    )
    assert drawn == explained
    assert {kind for kind, ink in drawn.items() if contrast(ink, paper) < SHAPE_CONTRAST} == set()


def luminance(colour):
    """Relative luminance of ``rgb(r, g, b)``, 0 to 1."""
    parts = [int(part) / 255 for part in colour[colour.index("(") + 1 : -1].split(",")[:3]]
    red, green, blue = (p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def contrast(one, other):
    light, dark = sorted((luminance(one), luminance(other)), reverse=True)
    return (light + 0.05) / (dark + 0.05)
