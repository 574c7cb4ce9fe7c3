"""The report's tables as text: for a terminal, and as Markdown."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from dettriton.study._plan import Arm
from dettriton.study._statistics import PValue, Spread
from dettriton.study._summary import LEVEL, ArmSummary, Comparison, Summary

NONE = "-"


@dataclass(frozen=True)
class TableText:
    """A table: its title, the names of its columns, rows of cells, and what is to be known to read it."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    notes: tuple[str, ...] = ()


def report_tables(summary: Summary) -> list[TableText]:
    """Every table of the report that has rows."""
    tables = [_arms(summary), *_classes(summary)]
    if summary.comparisons:
        tables += [_differences(summary), _variances(summary)]
    tables += [_friedman(summary), _problems(summary)]
    return [table for table in tables if table.rows]


def heading(summary: Summary) -> str:
    """What was studied, in a line."""
    model, data = summary.study["recipe"]["model"]["name"], summary.study["recipe"]["data"]["name"]
    epochs, runs = summary.study["recipe"]["train"]["epochs"], sum(len(arm.seeds) for arm in summary.arms)
    return f"{model} on {data}, {epochs} epochs: {_count(runs, 'run')}, {_count(len(summary.problems), 'diverged run')}"


def to_markdown(summary: Summary) -> str:
    """The report as a Markdown document."""
    parts = [f"# {heading(summary)}"]
    for table in report_tables(summary):
        lines = [table.columns, ("---",) * len(table.columns), *table.rows]
        parts.append(f"## {table.title}")
        parts.append("\n".join(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in row)} |" for row in lines))
        parts += table.notes
    return "\n\n".join(parts) + "\n"


def print_tables(summary: Summary) -> None:
    """Print the report on the standard output."""
    # rich takes longer to import than the rest of a short command
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    console = Console(highlight=False)
    if not console.is_terminal:
        # a pipe has no width of its own
        console = Console(highlight=False, width=140)
    console.print(escape(heading(summary)), style="bold")
    for table in report_tables(summary):
        shown = Table(*map(escape, table.columns), title=escape(table.title), title_justify="left")
        for row in table.rows:
            shown.add_row(*map(escape, row))
        console.print()
        console.print(shown)
        for note in table.notes:
            console.print(escape(note), style="dim")


def _arms(summary: Summary) -> TableText:
    columns = ("arm", "n", "AUC mean", "sd", "min", "max", "ACC mean", "sd", "min", "max", "macro F1 mean", "sd")
    rows = [
        (str(a.arm), str(a.auc.n), *_figures(a.auc), *_figures(a.acc), *_figures(a.f1)[:2])
        for a in summary.arms
    ]  # fmt: skip
    return TableText("Test figures by arm (initialisation/order)", columns, tuple(rows))


def _classes(summary: Summary) -> Iterator[TableText]:
    for order in sorted({a.arm.order for a in summary.arms}):
        arms = [a for a in summary.arms if a.arm.order == order]
        columns = ("class", *(f"{a.arm.init} (n = {a.auc.n})" for a in arms))
        rows = [(name, *(_mean_and_range(a.classes[name]) for a in arms)) for name in summary.study["classes"]]
        yield TableText(
            f"Test AUC by class, {order} order: mean (range over runs)", columns, tuple(rows), _uneven(arms)
        )


def _uneven(arms: Sequence[ArmSummary]) -> tuple[str, ...]:
    if len({a.auc.n for a in arms}) == 1:
        return ()
    return ("A range grows with the number of runs: compare it between arms of the same n only.",)


def _differences(summary: Summary) -> TableText:
    columns = ("arms", "pairs", "mean difference", "Wilcoxon p", "Holm", "equivalence p", "Holm")
    rows = [
        (
            _pair(c),
            str(c.n),
            f"{c.difference:+.4f}",
            *_p_and_holm(c.wilcoxon, c.adjusted["wilcoxon"]),
            *_p_and_holm(c.equivalence, c.adjusted["equivalence"]),
        )
        for c in summary.comparisons
    ]
    notes = (
        f"Test AUC of runs with the same seed. Wilcoxon: signed-rank test, two-sided; below {LEVEL} the arms differ, above "
        "it a difference was not shown, which is not equality.",
        f"Equivalence: two one-sided paired t-tests (TOST); below {LEVEL} the mean difference is within "
        f"±{summary.margin:g} AUC, above it that was not shown.",
        f"Holm: adjusted for the number of tests in the column; * below {LEVEL} after that.",
        *_undefined(summary, "wilcoxon", "Wilcoxon"),
        *_undefined(summary, "equivalence", "equivalence"),
    )
    return TableText("Paired comparisons of test AUC", columns, tuple(rows), notes)


def _variances(summary: Summary) -> TableText:
    columns = ("arms", "runs each", "sd of the first", "sd of the second", "ratio", "Brown-Forsythe p", "Holm")
    rows = [
        (
            _pair(c),
            str(c.n),
            *map(_decimal, c.sds),
            NONE if c.sd_ratio is None else f"{c.sd_ratio:.2f}",
            *_p_and_holm(c.variance, c.adjusted["variance"]),
        )
        for c in summary.comparisons
    ]
    notes = (
        "Runs with common seeds. Brown-Forsythe: Levene's test with medians, which takes the arms as independent; below "
        f"{LEVEL} they vary differently. Holm and * as above.",
        *_undefined(summary, "variance", "Brown-Forsythe"),
    )
    return TableText("Run-to-run variation of test AUC", columns, tuple(rows), notes)


def _friedman(summary: Summary) -> TableText:
    rows = [
        (", ".join(map(str, g.arms)), str(g.n), NONE if g.test.p is None else f"{g.test.statistic:.3f}", _p(g.test.p))
        for g in summary.groups
    ]
    notes = tuple(f"Not defined: {', '.join(map(str, g.arms))}: {g.test.note}." for g in summary.groups if g.test.note)
    said = f"Below {LEVEL} not all arms of the row are alike. Not adjusted for the number of rows."
    return TableText(
        "Friedman's test of test AUC", ("arms", "common seeds", "chi-squared", "p"), tuple(rows), (said, *notes)
    )


def _problems(summary: Summary) -> TableText:
    return TableText("Runs that diverged, left out above", ("run", "what happened"), tuple(summary.problems.items()))


def _undefined(summary: Summary, test: str, name: str) -> Iterator[str]:
    reasons: dict[str, list[Comparison]] = {}
    for comparison in summary.comparisons:
        if note := getattr(comparison, test).note:
            reasons.setdefault(note, []).append(comparison)
    for note, comparisons in reasons.items():
        yield f"{name}, {'; '.join(map(_pair, comparisons))}: {note}."


def _pair(comparison: Comparison) -> str:
    first, second = comparison.first, comparison.second
    return f"{_short(first, second)} - {_short(second, first)} ({_common(first, second)})"


def _short(arm: Arm, other: Arm) -> str:
    return arm.init if arm.order == other.order else arm.order


def _common(first: Arm, second: Arm) -> str:
    return first.order if first.order == second.order else first.init


def _p_and_holm(test: PValue, adjusted: float | None) -> tuple[str, str]:
    star = "*" if adjusted is not None and adjusted < LEVEL else ""
    return _p(test.p), _p(adjusted) + star


def _p(p: float | None) -> str:
    if p is None:
        return NONE
    return f"{p:.4f}" if p >= 0.0001 else f"{p:.1e}"


def _figures(spread: Spread) -> tuple[str, ...]:
    return tuple(map(_decimal, (spread.mean, spread.sd, spread.minimum, spread.maximum)))


def _decimal(number: float | None) -> str:
    return NONE if number is None else f"{number:.4f}"


def _mean_and_range(spread: Spread | None) -> str:
    return NONE if spread is None else f"{spread.mean:.4f} ({spread.range:.4f})"


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"
