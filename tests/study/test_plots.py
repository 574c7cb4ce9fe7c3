"""Pictures show the runs and are the same files each time."""

from itertools import pairwise

import pytest
from made_results import arms, results, run

from dettriton.errors import InputError
from dettriton.study import _plots, draw, summarise

NAMES = ["class_ranges.png", "class_ranges.svg", "runs.png", "runs.svg"]
RUNS = {
    "dct/golden/0": run(0.8, 0.9),
    "dct/golden/1": run(0.7, 0.95),
    "kaiming/golden/0": run(0.5, None),
    "kaiming/golden/1": {"problem": "nan"},
}


def written(found, folder):
    folder.mkdir()
    return {path.name: path.read_bytes() for path in draw(found, folder)}


def test_the_same_results_give_the_same_files(tmp_path):
    once = written(results(RUNS), tmp_path / "a")
    assert [*once] == NAMES == sorted(path.name for path in (tmp_path / "a").iterdir())
    assert written(results(dict(reversed(RUNS.items()))), tmp_path / "b") == once
    assert written(results(RUNS | {"dct/golden/2": 0.9}), tmp_path / "c")["runs.svg"] != once["runs.svg"]
    assert once["runs.png"].startswith(b"\x89PNG") and b"<svg" in once["runs.svg"]


def test_a_bar_reaches_from_the_lowest_to_the_highest_run_of_a_class():
    (axes,) = _plots._class_ranges(summarise(results(RUNS))).axes
    dct, kaiming = axes.containers
    assert [(b.get_y(), b.get_height()) for b in dct] == [(0.7, pytest.approx(0.1)), (0.9, pytest.approx(0.05))]
    assert [(b.get_y(), b.get_height()) for b in kaiming] == [(0.5, 0.0)]
    assert [t.get_text() for t in axes.get_xticklabels()] == ["a", "b"]
    assert dct.get_label() == "dct/golden (n = 2)"
    bars = [bar for container in axes.containers for bar in container]
    edges = sorted((b.get_x(), b.get_x() + b.get_width()) for b in bars)
    assert all(left[1] < right[0] for left, right in pairwise(edges)), "bars lie on each other"
    assert axes.get_ylim()[0] < 0.5


def test_every_run_is_a_point_and_keeps_its_place_in_each_arm():
    figure = _plots._runs(arms(dct=[0.5, 0.6, 0.6], kaiming=[0.7, 0.8, 0.9]).finished(), "ab")
    points = {c.get_label(): c.get_offsets() for c in figure.axes[0].collections if c.get_label().endswith("golden")}
    assert [y for _, y in points["dct/golden"]] == [0.5, 0.6, 0.6]
    dct, kaiming = ([x - place for x, _ in points[f"{init}/golden"]] for place, init in enumerate(("dct", "kaiming")))
    assert dct == pytest.approx(kaiming)
    assert len(set(dct)) == 3 and max(map(abs, dct)) < 0.3


def test_axes_say_what_they_show():
    ranges = _plots._class_ranges(summarise(results(RUNS))).axes[0]
    assert (ranges.get_xlabel(), ranges.get_ylabel()) == ("class", "test AUC (0 to 1)")
    assert _plots._runs(results(RUNS).finished(), "ab").axes[0].get_ylabel() == "test AUC, mean over classes (0 to 1)"
    assert _plots._runs(results(RUNS).finished(), "b").axes[0].get_ylabel() == "test AUC (0 to 1)"


def test_many_arms_do_not_look_alike():
    looks = [tuple(_plots._look(place).values()) for place in range(24)]
    assert len(set(looks)) == 24


def test_long_names_are_shortened(tmp_path):
    name = "melanocytic nevi and other lesions"
    (axes,) = _plots._class_ranges(summarise(results({"dct/golden/0": 0.5}, [name, "b"]))).axes
    assert axes.get_xticklabels()[0].get_text() == "melanocytic nevi and…"


def test_nothing_to_draw_is_refused(tmp_path):
    with pytest.raises(InputError, match="no finished run to draw"):
        draw(results({"dct/golden/0": {"problem": "nan"}}), tmp_path)
