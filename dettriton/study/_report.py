"""The files of a report."""

import json
from pathlib import Path

from dettriton.files import atomic_write
from dettriton.study._summary import Summary
from dettriton.study._tables import to_markdown

MARKDOWN, JSON = "report.md", "report.json"


def write_report(summary: Summary, folder: str | Path) -> list[Path]:
    """Write ``report.md`` and ``report.json``.

    Args:
        summary: from :func:`dettriton.study.summarise`.
        folder: an existing directory.

    Raises:
        InputError: a file cannot be written.
    """
    text = json.dumps(summary.to_dict(), sort_keys=True, indent=1, ensure_ascii=False, allow_nan=False)
    contents = {MARKDOWN: to_markdown(summary), JSON: text + "\n"}
    paths = [Path(folder) / name for name in contents]
    for path, content in zip(paths, contents.values(), strict=True):
        atomic_write(path, content.encode())
    return paths
