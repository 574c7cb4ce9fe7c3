"""The YAML front matter of a model card, as Hugging Face reads it."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from dettriton.data import SignalInfo
from dettriton.zoo._card_texts import DATA
from dettriton.zoo._facts import Facts

_METRICS = {"auc": ("roc_auc", "AUC, mean over classes"), "acc": ("accuracy", "ACC")}


def front_matter(facts: Facts) -> str:
    """Between two lines of three dashes; the figures are those of the manifest, unrounded."""
    entry, info = facts.entry, facts.info
    signals = isinstance(info, SignalInfo)
    task = "time-series-classification" if signals else "image-classification"
    text = DATA.get(info.name)
    content = {
        "license": entry.licence.lower(),
        "library_name": "dettriton",
        # Hugging Face has no pipeline for signals
        **({} if signals else {"pipeline_tag": task}),
        "tags": ["reproducible", "deterministic", facts.recipe.model.name, *(text.tags if text is not None else ())],
        "datasets": [info.name],
        "metrics": [metric for metric, _ in _METRICS.values()],
        "model-index": [
            {
                "name": facts.name,
                "results": [
                    {
                        "task": {"type": task},
                        "dataset": {"name": info.name, "type": info.name, "split": "test"},
                        "metrics": [
                            {"type": metric, "name": name, "value": entry.test[key], "verified": False}
                            for key, (metric, name) in _METRICS.items()
                        ],
                    }
                ],
            }
        ],
    }
    return "\n".join(["---", *_mapping(content), "---"])


def _mapping(content: Mapping[str, Any]) -> list[str]:
    lines = []
    for key, value in content.items():
        if isinstance(value, Mapping):
            lines += [f"{key}:", *(f"  {line}" for line in _mapping(value))]
        elif isinstance(value, str | float | bool):
            lines.append(f"{key}: {_scalar(value)}")
        else:
            lines += [f"{key}:", *_sequence(value)]
    return lines


def _sequence(items: Sequence[Any]) -> list[str]:
    lines = []
    for item in items:
        first, *rest = _mapping(item) if isinstance(item, Mapping) else [_scalar(item)]
        lines += [f"- {first}", *(f"  {line}" for line in rest)]
    return lines


def _scalar(value: str | float | bool) -> str:
    # JSON's strings and numbers are YAML's too
    return json.dumps(value, allow_nan=False)
