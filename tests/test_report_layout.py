"""The report in a real browser, at two widths, light and dark."""

from itertools import pairwise

import pytest

from tests import browser
from tests.test_html import whole

pytestmark = pytest.mark.skipif(browser.CHROMIUM is None, reason="no Chromium on this machine")

VIEWS = {"desk": {"width": 1280}, "phone": {"width": 390, "dark": True}}


@pytest.fixture(scope="module", params=VIEWS)
def view(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp("browser")
    return VIEWS[request.param] | {"found": browser.look(whole(), folder, **VIEWS[request.param])}


def test_nothing_is_wider_than_the_page(view):
    assert view["found"]["width"] == view["width"]
    assert view["found"]["scrolls"] <= view["width"]
    assert not view["found"]["wide"]


def test_all_text_can_be_read(view):
    assert view["found"]["dark"] == view.get("dark", False)
    assert not view["found"]["faint"]


def test_the_answer_is_on_the_first_screen(view):
    assert view["found"]["answer"] < 800


def test_the_keyboard_reaches_everything_in_order(view):
    found = view["found"]
    assert found["tabs"][0] == "To the answer"
    assert {"Ranking", "The mix", "Ranking of shards", "Commands"} <= set(found["tabs"])
    assert set(found["tabindexes"]) == {0}


def test_graphics_regions_and_links_have_names(view):
    assert not view["found"]["unnamed"]
    assert view["found"]["cells"] == 0


def test_headings_descend_one_at_a_time(view):
    levels = view["found"]["headings"]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(after <= before + 1 for before, after in pairwise(levels))
    assert view["found"]["landmarks"] == ["main", "nav", "header"]


def test_a_faint_text_and_a_wide_block_are_found(tmp_path):
    page = whole().replace(
        "</main>",
        '<p style="color:#bbb;background:#fff">faint</p><div style="width:3000px">.</div></main>',
    )
    found = browser.look(page, tmp_path, width=1280)
    assert ["faint", 1.92] in found["faint"]
    assert found["wide"]
