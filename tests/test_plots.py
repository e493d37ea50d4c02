import dataclasses
import doctest
import math
import re
import xml.etree.ElementTree as ET

import pytest

from curate.records import Run
from curate.report import svg
from curate.report.curves import (
    alignment_chart,
    arms_chart,
    forecast_chart,
    loss_chart,
    mean_curve,
)
from curate.report.gains import better_items, gains_chart, item_gains, token_worth
from curate.report.plots import interval_strip, mix_chart, ranking_chart, strip_ends
from curate.report.shard_map import map_chart
from curate.report.svg import Box, Scale, padded, place_label, spread, text_width, tick_text, ticks
from tests.report_records import HOSTILE, SOURCES, index, mix, ranking, verification

NS = "{http://www.w3.org/2000/svg}"
RECORDS = [
    (ranking_chart, ranking),
    (map_chart, ranking),
    (mix_chart, mix),
    (loss_chart, verification),
    (forecast_chart, verification),
    (arms_chart, verification),
    (alignment_chart, verification),
    (gains_chart, verification),
]


def numbers_of(element):
    return [float(v) for k, v in element.attrib.items() if k in {"x", "y", "cx", "cy", "x1", "x2"}]


@pytest.mark.parametrize(("draw", "record"), RECORDS)
@pytest.mark.parametrize("width", [360.0, 760.0])
def test_every_chart_is_well_formed_and_stays_in_its_frame(draw, record, width):
    root = ET.fromstring(draw(record(), width=width, standalone=True))
    left, top, full, height = map(float, root.attrib["viewBox"].split())
    full, height = full + 2 * left, height + 2 * top
    assert full == width
    for element in root.iter():
        if element.tag in {f"{NS}circle", f"{NS}text", f"{NS}line"}:
            for name, value in element.attrib.items():
                limit = {"x": full, "cx": full, "x1": full, "x2": full, "y": height, "cy": height}
                if name in limit:
                    assert -1 <= float(value) <= limit[name] + 1


@pytest.mark.parametrize(("draw", "record"), RECORDS)
def test_charts_are_pure_and_carry_no_style_attribute(draw, record):
    assert draw(record()) == draw(record())
    assert " style=" not in draw(record())
    assert "<style" not in draw(record())
    assert "<style" in draw(record(), standalone=True)
    assert "nan" not in draw(record()).lower()


@pytest.mark.parametrize("hostile", HOSTILE)
@pytest.mark.parametrize("standalone", [True, False])
def test_hostile_names_stay_text(hostile, standalone):
    names = (hostile, *SOURCES[:3])
    checked = dataclasses.replace(
        verification(),
        arms=tuple(dataclasses.replace(a, arm=hostile) for a in verification().arms),
        runs=tuple(dataclasses.replace(r, arm=hostile) for r in verification().runs),
    )
    for drawn in (
        ranking_chart(ranking(names, target=hostile), standalone=standalone),
        map_chart(ranking(names, target=hostile), standalone=standalone),
        interval_strip(ranking(names).shards[0], ranking(names), strip_ends(ranking(names))),
        mix_chart(mix(names), index=index(names), standalone=standalone),
        loss_chart(checked, standalone=standalone),
        arms_chart(checked, standalone=standalone),
        alignment_chart(checked, standalone=standalone),
        gains_chart(verification(), standalone=standalone),
    ):
        root = ET.fromstring(drawn)
        tags = {element.tag.removeprefix(NS) for element in root.iter()}
        assert tags <= {"svg", "style", "rect", "circle", "line", "path", "text", "title"}
        assert not any(name.startswith("on") for e in root.iter() for name in e.attrib)


def test_map_names_every_shard_on_hover_and_the_target():
    root = ET.fromstring(map_chart(ranking(), standalone=True))
    titles = [element.text for element in root.iter(f"{NS}title")]
    assert len(titles) == len(SOURCES) + 1
    assert titles[-1] == "target scipy-held-out"
    assert any(title.startswith("scipy-docstrings: alignment 0.930") for title in titles)


@pytest.mark.parametrize("width", [360.0, 760.0])
def test_map_labels_do_not_overlap(width):
    root = ET.fromstring(map_chart(ranking(), width=width, standalone=True))
    boxes = []
    for element in root.iter(f"{NS}text"):
        x, y, size = (
            float(element.attrib["x"]),
            float(element.attrib["y"]),
            text_width(element.text),
        )
        left = {"end": x - size, "middle": x - size / 2}.get(element.get("text-anchor"), x)
        boxes.append(Box(left + 0.5, y - 9, left + size - 0.5, y + 2))
    assert len(boxes) > 5
    assert not any(a.meets(b) for i, a in enumerate(boxes) for b in boxes[:i])


def test_map_of_very_many_shards_stays_small():
    many = ranking(tuple(f"s{i}" for i in range(4_000)))
    assert map_chart(many).count("<circle") < 1_600


def test_map_keeps_one_unit_equal_in_both_directions():
    corners = (("a", 0.0, 0.0), ("b", 1.0, 0.0), ("c", 0.0, 1.0), ("t", 0.5, 0.5))
    drawn = map_chart(dataclasses.replace(ranking(("a", "b", "c")), map=corners))
    spots = re.findall(r'<circle class="fill-main line-main" cx="([\d.]+)" cy="([\d.]+)"', drawn)
    (cx, cy), (bx, _), (ax, ay) = [(float(x), float(y)) for x, y in spots]
    assert bx - ax == pytest.approx(ay - cy, abs=0.2)
    assert ax == cx


@pytest.mark.parametrize("points", [(), (("t", 0.0, 0.0),), (("a", math.nan, 0.0), ("t", 0, 0))])
def test_a_map_without_shards_is_drawn_all_the_same(points):
    ET.fromstring(map_chart(dataclasses.replace(ranking(), map=points)))


def test_a_mix_bar_has_the_length_of_its_share_and_a_tick_for_the_corpus():
    root = ET.fromstring(mix_chart(mix(), index=index(), standalone=True))
    bars = [e for e in root.iter(f"{NS}rect") if e.get("class") == "fill-main"]
    widths = [float(bar.attrib["width"]) for bar in bars]
    assert widths[1] / widths[0] == pytest.approx(71 / 96, abs=0.01)
    assert sum(e.get("class") == "whisker line-warm" for e in root.iter()) == 5


def test_many_sources_end_in_one_bar():
    names = tuple(f"source-{i}" for i in range(5))
    drawn = mix_chart(mix(names), most=3)
    assert "3 more sources" in drawn
    assert drawn.count('class="fill-main"') == 3


def test_what_is_not_finite_is_left_out():
    shard = dataclasses.replace(
        ranking().shards[0], alignment=math.nan, low=math.nan, high=math.nan
    )
    broken = dataclasses.replace(ranking(), shards=(shard,), ceiling=math.nan, floor=math.nan)
    strip = interval_strip(shard, broken, strip_ends(broken))
    assert "nan" not in ranking_chart(broken) + strip + map_chart(broken)
    arm = dataclasses.replace(verification().arms[0], low=math.nan, alignment=math.nan)
    odd = dataclasses.replace(verification(), arms=(arm,), runs=())
    for draw in (arms_chart, alignment_chart, loss_chart, forecast_chart, gains_chart):
        assert "nan" not in draw(odd).lower()


def test_gains_of_items_are_those_of_hand():
    def run(arm, seed, nats):
        return Run(arm, seed, 9, 0.0, 0.0, nats, (2, 4), (), 0.0)

    runs = (
        run("mix", 0, (6.0, 8.0)),
        run("mix", 1, (8.0, 8.0)),
        run("random", 0, (9.0, 6.0)),
        run("random", 1, (11.0, 8.0)),
        run("worst", 0, (0.0, 0.0)),
    )
    measured = dataclasses.replace(verification(), runs=runs)
    assert item_gains(measured) == [(7.0 - 8.0) / 4, (10.0 - 7.0) / 2]
    assert better_items(item_gains(measured)).startswith("1 of 2 items (50%) has a lower loss")
    assert "Gain of the mix on 2 items" in gains_chart(measured)


@pytest.mark.parametrize(
    ("gains", "said"),
    [
        ([0.5], ("1 of 1 item (100%) has", "+0.500")),
        ([-1.0, 1.0], ("1 of 2 items (50%) has", "0.000")),
        ([-0.2, 0.1, 0.4], ("2 of 3 items (67%) have", "+0.100")),
    ],
)
def test_the_median_gain_is_between_the_two_in_the_middle(gains, said):
    assert all(words in better_items(gains) for words in said)


@pytest.mark.parametrize(
    ("value", "said"),
    [(5.583, "5.58"), (16 - 4e-15, "16.00 or more"), (1 / 16, "0.06 or less"), (1.0, "1.00"),
     (math.nan, "")],
)  # fmt: skip
def test_a_worth_beyond_the_first_point_is_a_bound(value, said):
    points = tuple((100 * n, 5.0 - n / 16) for n in (1, 2, 4, 8, 12, 16))
    runs = tuple(dataclasses.replace(run, points=points) for run in verification().runs)
    assert token_worth(dataclasses.replace(verification(), runs=runs, multiplier=value)) == said
    bare = dataclasses.replace(verification(), multiplier=value)  # of a state that kept no points
    assert token_worth(bare) == said.removesuffix(" or more").removesuffix(" or less")


def test_items_that_gain_a_last_bit_are_drawn():
    runs = (
        Run("random", 0, 9, 0.0, 0.0, (5.0, 6.0), (1, 1), (), 0.0),
        Run("mix", 0, 9, 0.0, 0.0, (5.0 - 1e-15, 6.0 + 2e-15), (1, 1), (), 0.0),
    )
    assert "<svg" in gains_chart(dataclasses.replace(verification(), runs=runs))


def test_mean_curve_interpolates_between_steps():
    def run(curve):
        return Run("mix", 0, 0, 0.0, 0.0, (), (), curve, 0.0)

    runs = [run(((10, 4.0), (20, 2.0), (30, 1.0))), run(((10, 2.0), (30, 1.0)))]
    assert mean_curve(runs) == [
        (10, 3.0, 2.0, 4.0),
        (20, 1.75, 1.5, 2.0),
        (30, 1.0, 1.0, 1.0),
    ]
    assert mean_curve([run(())]) == []


def test_mean_curve_of_a_long_run_is_short_and_skips_the_start():
    (curve,) = [mean_curve(verification().runs[:3])]
    assert len(curve) <= 96
    assert curve[0][0] >= 0.1 * curve[-1][0]


def test_scale_keeps_values_inside():
    scale = Scale(0, 2, 10, 110)
    assert [scale(v) for v in (-1, 0, 1, 2, 3)] == [10, 10, 60, 110, 110]


def test_ticks_are_round_and_inside():
    for low, high in [(0, 1), (-0.3, 0.42), (4.1, 5.2), (0, 2_000_000), (1e-5, 3e-5), (0, 1e-12)]:
        values = ticks(low, high)
        assert 2 <= len(values) <= 11
        assert all(low - 1e-9 <= value <= high * (1 + 1e-9) for value in values)
        assert len({tick_text(value, values) for value in values}) == len(values)


def test_padded_is_never_empty():
    for values in ([], [math.nan], [0.0], [3.0, 3.0], [1.0, 2.0]):
        low, high = padded(values)
        assert low < high


def test_spread_keeps_order_gap_and_bounds():
    placed = spread([50, 10, 11, 12], 10, low=0, high=60)
    assert sorted(placed) == [placed[1], placed[2], placed[3], placed[0]]
    assert min(b - a for a, b in zip(sorted(placed), sorted(placed)[1:], strict=False)) >= 10
    assert spread([], 10, low=0, high=1) == []
    crowded = spread([5.0] * 20, 10, low=0, high=60)
    assert min(crowded) >= -1e-9
    assert max(crowded) <= 60 + 1e-9


def test_place_label_gives_up_where_there_is_no_room():
    frame = Box(0, 0, 200, 100)
    assert place_label(100, 50, "name", taken=[], frame=frame) is not None
    assert place_label(100, 50, "name", taken=[frame], frame=frame) is None


def test_docstring_examples():
    assert doctest.testmod(svg).failed == 0
