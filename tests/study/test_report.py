"""What is compared with what, and how it is told."""

import json

import pytest
from made_results import arms, results, run

from dettriton.errors import InputError
from dettriton.study import print_tables, summarise, write_report
from dettriton.study._statistics import equal_variance, wilcoxon
from dettriton.study._tables import report_tables, to_markdown

# all differences but the last, the smallest, are above 0, and none are tied: the signed-rank p is 4/128
DCT = [0.95, 0.96, 0.94, 0.97, 0.955, 0.965, 0.945]
KAIMING = [0.94, 0.90, 0.932, 0.92, 0.935, 0.961, 0.946]


def table(summary, title):
    (found,) = [t for t in report_tables(summary) if t.title.startswith(title)]
    return found


def pairs(summary):
    return {(str(c.first), str(c.second)) for c in summary.comparisons}


def test_arms_have_their_own_figures():
    summary = summarise(results({"dct/golden/0": run(0.5, 1.0, acc=0.25), "dct/golden/1": run(1.0, 1.0, acc=0.75)}))
    (arm,) = summary.arms
    assert (arm.auc.n, arm.auc.mean, arm.acc.mean, arm.f1.mean) == (2, 0.875, 0.5, 0.25)
    assert {name: (s.mean, s.range) for name, s in arm.classes.items()} == {"a": (0.75, 0.5), "b": (1.0, 0.0)}


def test_a_class_without_an_area_is_left_out_of_its_spread():
    summary = summarise(results({"dct/golden/0": run(None, 1.0), "dct/golden/1": run(None, 0.5)}))
    assert summary.arms[0].classes["a"] is None
    assert ("a", "-") in table(summary, "Test AUC by class").rows


def test_arms_that_differ_in_one_thing_are_compared():
    runs = {f"{arm}/0": 0.5 for arm in ("dct/golden", "dct/shuffle", "kaiming/golden", "kaiming/shuffle")}
    assert pairs(summarise(results(runs))) == {
        ("dct/golden", "dct/shuffle"),
        ("dct/golden", "kaiming/golden"),
        ("dct/shuffle", "kaiming/shuffle"),
        ("kaiming/golden", "kaiming/shuffle"),
    }


def test_pairs_are_the_common_seeds():
    runs = {f"dct/golden/{k}": a for k, a in enumerate(DCT)} | {
        f"kaiming/golden/{k}": KAIMING[k] for k in (6, 3, 0, 1, 2, 5)
    }
    # a seed of one arm alone, and one that diverged in the other, must not count
    runs |= {"kaiming/golden/9": 0.1, "kaiming/golden/4": {"problem": "nan"}}
    (found,) = summarise(results(runs)).comparisons
    seeds = [0, 1, 2, 3, 5, 6]
    one, other = [DCT[k] for k in seeds], [KAIMING[k] for k in seeds]
    assert found.n == 6
    assert found.difference == pytest.approx(sum(one) / 6 - sum(other) / 6)
    assert found.wilcoxon == wilcoxon(one, other)
    assert found.variance == equal_variance(one, other)
    assert found.sd_ratio == found.sds[0] / found.sds[1] < 1


def test_arms_without_a_common_seed_are_not_compared():
    assert not summarise(results({"dct/golden/0": 0.5, "kaiming/golden/1": 0.5})).comparisons


def test_holm_counts_the_defined_tests_of_all_comparisons():
    summary = summarise(arms(dct=DCT, kaiming=KAIMING, hartley=DCT[::-1], dst=[0.9, 0.91]))
    plain = [c.wilcoxon.p for c in summary.comparisons]
    assert plain.count(None) == 3
    smallest = min(p for p in plain if p is not None)
    assert summary.comparisons[plain.index(smallest)].adjusted["wilcoxon"] == pytest.approx(3 * smallest)


def test_friedman_needs_three_arms_of_one_kind():
    assert not summarise(arms(dct=DCT, kaiming=KAIMING)).groups
    runs = arms(dct=DCT, kaiming=KAIMING, hartley=DCT[:4]).runs | {"dct/shuffle/0": 0.5, "dct/rotation/0": 0.5}
    groups = {tuple(map(str, g.arms)): g.n for g in summarise(results(runs)).groups}
    assert groups == {
        ("dct/golden", "hartley/golden", "kaiming/golden"): 4,
        ("dct/golden", "dct/rotation", "dct/shuffle"): 1,
    }


@pytest.mark.parametrize("margin", [0.0, -0.01, float("nan")])
def test_a_margin_that_is_none_is_refused(margin):
    with pytest.raises(InputError, match="margin above 0"):
        summarise(arms(dct=DCT), margin)


def test_the_tables_tell_the_numbers():
    summary = summarise(arms(dct=DCT, kaiming=KAIMING), margin=0.02)
    assert table(summary, "Test figures").rows[0][:6] == ("dct/golden", "7", "0.9550", "0.0108", "0.9400", "0.9700")
    compared = table(summary, "Paired comparisons")
    assert compared.rows[0][:4] == ("dct - kaiming (golden)", "7", "+0.0216", "0.0312")
    assert compared.rows[0][4] == "0.0312*"
    assert any("±0.02 AUC" in note for note in compared.notes)
    assert table(summary, "Run-to-run variation").rows[0][1:5] == ("7", "0.0108", "0.0194", "0.56")


def test_what_is_not_defined_is_told_with_its_reason():
    summary = summarise(arms(dct=DCT[:5], kaiming=KAIMING[:5]))
    compared = table(summary, "Paired comparisons")
    assert compared.rows[0][3:5] == ("-", "-")
    assert "Wilcoxon, dct - kaiming (golden): not defined for fewer than 6 pairs." in compared.notes


def test_ranges_of_unequal_arms_carry_a_warning():
    (even,) = [t.notes for t in report_tables(summarise(arms(dct=DCT, kaiming=KAIMING))) if "by class" in t.title]
    (uneven,) = [t.notes for t in report_tables(summarise(arms(dct=DCT, kaiming=KAIMING[:3]))) if "by class" in t.title]
    assert not even and "compare it between arms of the same n only" in uneven[0]


def test_runs_that_diverged_are_counted_and_told():
    summary = summarise(results({"dct/golden/0": 0.5, "dct/golden/1": {"problem": "step 3: the loss is nan"}}))
    text = to_markdown(summary)
    assert text.startswith("# tiny on made, 3 epochs: 1 run, 1 diverged run\n")
    assert "| dct/golden/1 | step 3: the loss is nan |" in text


def test_a_study_of_which_every_run_diverged_has_a_report():
    text = to_markdown(summarise(results({"dct/golden/0": {"problem": "nan"}})))
    assert "0 runs, 1 diverged run" in text and "Paired" not in text


def test_the_files_hold_what_the_summary_says(tmp_path):
    summary = summarise(arms(kaiming=KAIMING, dct=DCT, hartley=DCT[:3]))
    markdown, content = write_report(summary, tmp_path)
    assert markdown.read_text() == to_markdown(summary)
    told = json.loads(content.read_text())
    assert told["arms"]["dct/golden"]["auc"]["n"] == 7
    assert told["arms"]["dct/golden"]["class_auc"]["b"]["range"] == pytest.approx(0.03)
    by_pair = {(c["first"], c["second"]): c for c in told["comparisons"]}
    assert by_pair["dct/golden", "kaiming/golden"]["wilcoxon"]["p"] == 4 / 128
    assert by_pair["dct/golden", "hartley/golden"]["wilcoxon"]["p"] is None
    assert told["friedman"][0]["n"] == 3
    assert told["margin"] == 0.01


def test_the_files_do_not_depend_on_the_order_of_the_runs(tmp_path):
    runs = arms(kaiming=KAIMING, dct=DCT).runs
    (tmp_path / "a").mkdir(), (tmp_path / "b").mkdir()
    one = write_report(summarise(results(runs)), tmp_path / "a")
    other = write_report(summarise(results(dict(reversed(runs.items())))), tmp_path / "b")
    assert [p.read_bytes() for p in one] == [p.read_bytes() for p in other]


def test_tables_are_printed_whole(capsys):
    print_tables(summarise(arms(dct=DCT, kaiming=KAIMING, hartley=DCT)))
    told = capsys.readouterr().out
    for words in ("dct/golden", "Holm", "0.0312", "Friedman's test", "two-sided"):
        assert words in told
    assert "…" not in told
