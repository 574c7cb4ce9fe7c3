"""A released model's card: Markdown with the front matter that Hugging Face reads."""

import re
from pathlib import Path

from dettriton.train.recipe import SGD, Recipe
from dettriton.zoo._card_texts import (
    ARCHITECTURES,
    DATA,
    DEFAULT_PURPOSE,
    DEMONSTRATION,
    EQUAL_BITS,
    NOT_A_DEVICE,
    NOTES,
    PUBLISHED_NETWORK,
    PUBLISHED_SOURCE,
)
from dettriton.zoo._class_report import ClassReport, figure, read_report
from dettriton.zoo._facts import Facts, gather, samples_line, shape_line, two_figures
from dettriton.zoo._front_matter import front_matter

_OPTIMIZERS = {"sgd": "SGD", "adam": "Adam", "adamw": "AdamW"}
_LOSSES = {"cross_entropy": "cross-entropy", "binary_cross_entropy_with_logits": "binary cross-entropy"}


def card(name: str, report: str | Path | None = None) -> str:
    """The card of a released model, ending in a line feed.

    Args:
        name: of the model.
        report: what ``dettriton evaluate NAME --json`` printed, for the table of classes; left out without it.

    Raises:
        InputError: there is no such model, or the report is not one of it on the test split.
        DamagedReleaseError: its recipe is not the released one.
    """
    facts = gather(name)
    sections = [
        front_matter(facts),
        f"# {name}",
        _summary(facts),
        _digests(facts),
        _reproduce(facts),
        f"**Data.** {data_text(facts)}",
        f"**Training.** {training_text(facts.recipe)}",
        _recipe_block(facts.recipe_text),
        *([NOTES[name]] if name in NOTES else []),
        *([_classes(read_report(report, facts))] if report is not None else []),
        f"**Intended use and limits.** {limits_text(facts)}",
    ]
    return "\n\n".join(sections) + "\n"


def data_text(facts: Facts) -> str:
    """What the data is, in sentences of Markdown."""
    text, info = DATA.get(facts.info.name), facts.info
    numbers = f"{info.licence}; {samples_line(info)} samples ({shape_line(info)})"
    if text is None:
        return f"`{info.name}`: {info.title.rstrip('.')}. {numbers}."
    return f"{text.origin}; {numbers}. {text.details}"


def training_text(recipe: Recipe) -> str:
    """What the recipe says, in sentences of Markdown."""
    train, augment = recipe.train, recipe.augment
    parts = [
        recipe.model.name,
        f"{recipe.init.scheme} initialisation",
        f"{recipe.order.kind} order",
        f"{_OPTIMIZERS[recipe.optimizer.name]} ({_optimizer_settings(recipe)})",
        _schedule(recipe),
        _plural(train.epochs, "epoch"),
        f"batch {train.batch_size}",
        f"precision `{train.precision}`",
        _LOSSES[train.loss] + (" with positives weighed sqrt(N / n)" if train.pos_weight == "sqrt" else ""),
        *([f"label smoothing {train.label_smoothing:g}"] if train.label_smoothing else []),
        *(["horizontal flips"] if augment.hflip else []),
        *([f"crops after padding by {augment.crop_padding}"] if augment.crop_padding else []),
    ]
    return (
        f"{', '.join(parts)}. Figures follow MedMNIST's protocol: AUC is the mean over classes, and the epoch is the one "
        "with the best validation AUC."
    )


def limits_text(facts: Facts) -> str:
    """What the model is for and what it is not, in sentences of Markdown."""
    text = DATA.get(facts.info.name)
    own = [] if text is None else [text.limits.format(**{split: f"{n:,}" for split, n in facts.info.samples.items()})]
    return " ".join([DEFAULT_PURPOSE if facts.is_default else DEMONSTRATION, NOT_A_DEVICE, *own, EQUAL_BITS])


def _summary(facts: Facts) -> str:
    what = ARCHITECTURES.get(facts.recipe.model.name, f"`{facts.recipe.model.name}`")
    text = DATA.get(facts.info.name)
    subject = f"`{facts.info.name}` ({shape_line(facts.info)})" if text is None else text.subject
    return (
        f"{what}, {facts.parameters:,} parameters, for {subject}.\n"
        f"Trained by dettriton: anyone who trains [its recipe](../recipes/{facts.name}.toml) gets these bits."
    )


def _digests(facts: Facts) -> str:
    entry, epochs = facts.entry, facts.recipe.train.epochs
    chosen = f"(best of {_plural(epochs, 'epoch')}: epoch {entry.best_epoch + 1})"
    rows = [
        ("weights digest", f"`{entry.weights_digest}`"),
        ("file SHA-256", f"`{entry.file_sha256}`"),
        ("initial weights digest", f"`{entry.init_digest}`"),
        ("bitspec", str(entry.bitspec)),
        ("test AUC / ACC", two_figures(entry.test)),
        ("validation AUC / ACC", f"{two_figures(entry.validation)} {chosen}"),
    ]
    text = DATA.get(facts.info.name)
    if text is not None and text.published is not None:
        auc, acc = text.published
        rows.append((PUBLISHED_NETWORK, f"{auc:.3f} / {acc:.3f} ({PUBLISHED_SOURCE})"))
    return "\n".join(["| | |", "|---|---|", *(f"| {name} | {value} |" for name, value in rows)])


def _reproduce(facts: Facts) -> str:
    fetch = " (`--download` fetches the data)" if facts.info.url is not None else ""
    return f"Reproduce it: `{facts.verify_command}`{fetch}."


def _recipe_block(text: str) -> str:
    # a fence is longer than any run of backticks inside it
    fence = "`" * max(3, 1 + max((len(run) for run in re.findall("`+", text)), default=0))
    return f"{fence}toml\n{text}\n{fence}"


def _classes(report: ClassReport) -> str:
    lines = [
        f"**Class by class**, on the {report.samples:,} test samples (`dettriton evaluate`):",
        "",
        "| class | positives | AUC | F1 |",
        "|---|---|---|---|",
    ]
    for row in report.classes:
        positives = "–" if row.positives is None else f"{row.positives:,}"  # noqa: RUF001 an en dash is what is meant
        lines.append(f"| {_cell(row.name)} | {positives} | {figure(row.auc)} | {figure(row.f1)} |")
    mean = f"Mean F1 {report.f1:.4f}, expected calibration error {report.calibration_error:.4f} (15 bins)."
    return "\n".join([*lines, "", mean])


def _cell(text: str) -> str:
    return re.sub(r"([\\`*_\[\]<>|~])", r"\\\1", " ".join(text.split()))


def _optimizer_settings(recipe: Recipe) -> str:
    optimizer = recipe.optimizer
    parts = [f"lr {optimizer.lr:g}"]
    if isinstance(optimizer, SGD):
        parts += [f"momentum {optimizer.momentum:g}"] if optimizer.momentum else []
        parts += [f"dampening {optimizer.dampening:g}"] if optimizer.dampening else []
        parts += ["Nesterov"] if optimizer.nesterov else []
    elif optimizer.betas != (0.9, 0.999):
        parts.append(f"betas {optimizer.betas[0]:g} and {optimizer.betas[1]:g}")
    parts += [f"weight decay {optimizer.weight_decay:g}"] if optimizer.weight_decay else []
    return ", ".join(parts)


def _schedule(recipe: Recipe) -> str:
    warmup = recipe.schedule.warmup_epochs
    after = f" after {_plural(warmup, 'epoch')} of warm-up" if warmup else ""
    return f"{recipe.schedule.name} schedule{after}"


def _plural(count: int, word: str) -> str:
    return f"{count:,} {word}{'' if count == 1 else 's'}"
