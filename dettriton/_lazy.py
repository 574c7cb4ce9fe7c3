"""Packages whose names load on first use, so that what is cheap to ask for stays cheap."""

import importlib
from collections.abc import Callable, Mapping
from typing import Any


def lazy_names(package: dict[str, Any], homes: Mapping[str, str]) -> tuple[Callable, Callable]:
    """``__getattr__`` and ``__dir__`` of a package (PEP 562).

    Args:
        package: its ``globals()``.
        homes: name to the module of the package that has it.
    """
    path = package["__name__"]

    def get(name: str) -> Any:
        if name in homes:
            return getattr(importlib.import_module(f"{path}.{homes[name]}"), name)
        raise AttributeError(f"module {path!r} has no attribute {name!r}")

    def listed() -> list[str]:
        return sorted([*package, *homes])

    return get, listed
