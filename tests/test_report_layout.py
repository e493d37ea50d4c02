"""The report in a real browser, at two widths, light and dark; printed; under axe-core."""

import os
import re
import shutil
import subprocess
from itertools import pairwise
from pathlib import Path

import pytest

from tests import accessibility, browser
from tests.report_records import index, mix
from tests.test_html import whole

pytestmark = pytest.mark.skipif(browser.CHROMIUM is None, reason="no Chromium on this machine")

AXE = Path(os.environ.get("CURATE_AXE", "build/axe/node_modules/axe-core/axe.min.js"))
VIEWS = {"desk": {"width": 1280}, "phone": {"width": 360, "dark": True}}


@pytest.fixture(scope="module", params=VIEWS)
def view(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp("browser")
    return VIEWS[request.param] | {"found": browser.look(whole(), folder, **VIEWS[request.param])}


def test_nothing_is_wider_than_the_page(view):
    assert view["found"]["width"] == view["width"]
    assert view["found"]["scrolls"] <= view["width"]
    assert not view["found"]["wide"]


def test_of_the_tables_only_that_of_the_arms_scrolls_sideways_and_only_on_a_phone(view):
    assert view["found"]["sideways"] == (["Arms"] if view["width"] < 500 else [])


def test_no_text_of_a_chart_is_cut_at_its_edge(view):
    assert not view["found"]["cut"]


def test_a_name_of_wide_letters_has_room_beside_its_bar(tmp_path):
    names = ("mmmmmmwwwwww", "WMWM", "numpy")
    found = browser.look(whole(mix=mix(names), index=index(names)), tmp_path, width=360)
    assert not found["cut"]


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


@pytest.fixture(scope="module")
def printed(tmp_path_factory):
    """Words of the printed report with their places, and its pixels, from a dark desktop."""
    if not shutil.which("pdftotext"):
        pytest.skip("pdftotext of poppler-utils is not installed")
    folder = tmp_path_factory.mktemp("printed")
    (folder / "report.html").write_text(whole(), encoding="utf-8")
    browser.print_pdf(folder / "report.html", folder, to=folder / "report.pdf", dark=True)
    return folder / "report.pdf"


def poppler(command, *words):
    done = subprocess.run([command, *map(str, words)], capture_output=True, check=True)
    return done.stdout


def test_what_folds_on_the_screen_is_open_on_paper(printed):
    text = poppler("pdftotext", "-layout", printed, "-").decode()
    folded = re.findall(r"<details>.*?</details>", whole(), re.DOTALL)
    assert len(folded) >= 5
    for part in folded:
        cells = re.findall(r'<td class="n">([\d,.]{5,})</td>|<th scope="row">(\w+)<', part)
        for cell in {first or second for first, second in cells}:
            assert cell in text, cell
    assert "Every arm in numbers" in text and "Examples, each with its reason" in text


def test_nothing_is_cut_at_the_edge_of_the_paper(printed):
    boxes = poppler("pdftotext", "-bbox", printed, "-").decode()
    width = float(re.search(r'<page width="([\d.]+)"', boxes)[1])
    edges = re.findall(r'xMin="([\d.-]+)".* xMax="([\d.]+)"', boxes)
    assert len(edges) > 500
    assert min(float(left) for left, _ in edges) > 20
    assert max(float(right) for _, right in edges) < width - 20


def test_paper_is_white_and_ink_dark_also_where_the_desktop_is_dark(printed):
    page = poppler("pdftoppm", "-r", "40", "-f", "1", "-l", "1", printed)
    head = re.match(rb"P6\s+(\d+)\s+(\d+)\s+255\s", page)
    pixels = page[head.end() :]
    lightness = sorted(pixels[1::3])  # the green of each pixel
    assert len(lightness) == int(head[1]) * int(head[2])
    assert lightness[len(lightness) // 4] == 255
    assert lightness[0] < 90


@pytest.mark.skipif(not AXE.is_file(), reason="no axe-core: make accessibility")
@pytest.mark.parametrize(("width", "dark"), accessibility.VIEWS)
def test_axe_finds_nothing(tmp_path, width, dark):
    axe = AXE.read_text(encoding="utf-8")
    found = accessibility.examine(whole(), axe, tmp_path, width=width, dark=dark)
    assert found["passes"] > 30
    assert not found["violations"]
    # text in charts has no box to measure; PROBE reads its fill
    assert {rule["rule"] for rule in found["incomplete"]} <= {"color-contrast"}


@pytest.mark.skipif(not AXE.is_file(), reason="no axe-core: make accessibility")
def test_axe_would_find_an_unnamed_graphic(tmp_path):
    page = whole().replace("</main>", '<div role="img"></div><a href="#x"></a></main>')
    axe = AXE.read_text(encoding="utf-8")
    found = accessibility.examine(page, axe, tmp_path, width=1280, dark=False)
    assert {"role-img-alt", "link-name"} <= {rule["rule"] for rule in found["violations"]}
