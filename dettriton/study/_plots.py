"""Pictures of a study, in colours that a colour-blind reader tells apart; a picture of equal results is the same file."""

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from dettriton.errors import InputError
from dettriton.files import atomic_write
from dettriton.study._plan import Arm
from dettriton.study._results import Results
from dettriton.study._summary import ArmSummary, Summary, summarise

# Okabe and Ito's, without yellow and black; dark and light hues in turn
COLOURS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#D55E00", "#56B4E9")
HATCHES = ("", "////", "....", "xxxx")
STYLE = {"svg.hashsalt": "dettriton", "font.size": 11, "axes.spines.top": False, "axes.spines.right": False}
KINDS = {"png": {"Software": None}, "svg": {"Date": None}}
_LONGEST_NAME = 22
_LETTERS_IN_A_ROW = 60
_GOLDEN = 0.6180339887498949


def draw(results: Results, folder: str | Path) -> list[Path]:
    """Draw ``class_ranges`` and ``runs``, each as PNG and SVG.

    Args:
        results: from :func:`dettriton.study.load_results` or :func:`dettriton.study.run_study`.
        folder: an existing directory.

    Returns:
        The paths of the pictures.

    Raises:
        InputError: there is no finished run to draw, or a file cannot be written.
    """
    from matplotlib import rc_context

    finished = results.finished()
    if not finished:
        raise InputError("the study has no finished run to draw; run it without --report-only first")
    paths = []
    with rc_context(STYLE):
        figures = {"class_ranges": _class_ranges(summarise(results)), "runs": _runs(finished, results.study["classes"])}
        for stem, figure in figures.items():
            for kind, metadata in KINDS.items():
                content = io.BytesIO()
                figure.savefig(content, format=kind, dpi=120, metadata=metadata)
                paths.append(Path(folder) / f"{stem}.{kind}")
                atomic_write(paths[-1], content.getvalue())
    return paths


def _class_ranges(summary: Summary) -> Any:
    """For each class a bar an arm, from the lowest to the highest AUC of its runs, with a line at the mean."""
    classes, arms = summary.study["classes"], summary.arms
    figure, axes = _new_figure(width=max(7.5, min(11.0, 2.5 + 0.2 * len(classes) * (len(arms) + 1))), height=4.6)
    # else the lowest bar would stand on the axis as if it were cut
    axes.use_sticky_edges = False
    width = 0.8 / len(arms)
    for place, summarised in enumerate(arms):
        known = [(k, s) for k, name in enumerate(classes) if (s := summarised.classes[name]) is not None]
        centres = [k + (place - (len(arms) - 1) / 2) * width for k, _ in known]
        axes.bar(
            centres,
            [s.range for _, s in known],
            width=0.85 * width,
            bottom=[s.minimum for _, s in known],
            label=_label(summarised),
            linewidth=0.5,
            edgecolor="white",
            **_look(place),
        )
        means = [s.mean for _, s in known]
        axes.hlines(means, *_around(centres, 0.46 * width), color="black", linewidth=1.5)
    axes.set_xticks(range(len(classes)), [_shortened(name) for name in classes])
    if sum(map(len, classes)) + 2 * len(classes) > _LETTERS_IN_A_ROW:
        axes.tick_params(axis="x", rotation=35)
        for text in axes.get_xticklabels():
            text.set_horizontalalignment("right")
            text.set_rotation_mode("anchor")
    axes.set(xlabel="class", ylabel="test AUC (0 to 1)", xlim=(-0.6, len(classes) - 0.4))
    axes.grid(axis="y", color="#dddddd", linewidth=0.6)
    axes.set_axisbelow(True)
    axes.set_title("Lowest to highest test AUC over runs; the line is the mean", fontsize=11, loc="left")
    figure.legend(loc="outside lower center", ncols=min(4, len(arms)), frameon=False)
    return figure


def _runs(finished: dict[Arm, dict[int, dict[str, Any]]], classes: Sequence[str]) -> Any:
    """For each arm a point a run, with a line at the mean."""
    figure, axes = _new_figure(width=max(6.0, min(11.0, 2.0 + 1.3 * len(finished))), height=4.2)
    for place, (arm, runs) in enumerate(finished.items()):
        values = [run["test"]["auc"] for run in runs.values()]
        # spread by the seed, so that equal values show and a run keeps its place in every arm
        places = [place + 0.5 * ((seed * _GOLDEN) % 1 - 0.5) for seed in runs]
        colour = COLOURS[place % len(COLOURS)]
        axes.scatter(places, values, s=34, color=colour, edgecolor="white", linewidth=0.6, label=str(arm), zorder=3)
        mean = sum(values) / len(values)
        axes.hlines([mean], place - 0.33, place + 0.33, color="black", linewidth=1.8, zorder=4)
    labels = [f"{arm.init}\n{arm.order}\nn = {len(runs)}" for arm, runs in finished.items()]
    axes.set_xticks(range(len(finished)), labels)
    what = "test AUC" if len(classes) == 1 else "test AUC, mean over classes"
    axes.set(ylabel=f"{what} (0 to 1)", xlim=(-0.6, len(finished) - 0.4), xlabel="initialisation, order, runs")
    axes.grid(axis="y", color="#dddddd", linewidth=0.6)
    axes.set_title("Each point is a run; the line is the mean", fontsize=11, loc="left")
    return figure


def _new_figure(width: float, height: float) -> tuple[Any, Any]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    return figure, figure.subplots()


def _look(place: int) -> dict[str, Any]:
    cycle, colour = divmod(place, len(COLOURS))
    return {"facecolor": COLOURS[colour], "hatch": HATCHES[cycle % len(HATCHES)]}


def _label(summarised: ArmSummary) -> str:
    return f"{summarised.arm} (n = {summarised.auc.n})"


def _around(centres: Sequence[float], reach: float) -> tuple[list[float], list[float]]:
    return [c - reach for c in centres], [c + reach for c in centres]


def _shortened(name: str) -> str:
    return name if len(name) <= _LONGEST_NAME else name[: _LONGEST_NAME - 1].rstrip(" ,;") + "…"
