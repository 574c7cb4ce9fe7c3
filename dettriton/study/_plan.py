"""What a study trains: one recipe under every initialisation, order and seed."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from dettriton.errors import InputError
from dettriton.train.recipe import INIT_SCHEMES, ORDER_KINDS, Recipe, parse_recipe

SEEDS = 20
"""The number of runs an arm of the paper has (arXiv 2603.28040)."""


@dataclass(frozen=True, order=True)
class Arm:
    """An initialisation scheme and an order: runs of one arm differ in their seed only."""

    init: str
    order: str

    def __str__(self) -> str:
        return f"{self.init}/{self.order}"


@dataclass(frozen=True)
class PlannedRun:
    """One training of a study."""

    arm: Arm
    seed: int

    @property
    def key(self) -> str:
        """Its name in the results, ``dct/golden/3``."""
        return f"{self.arm}/{self.seed}"

    @property
    def folder(self) -> str:
        """Its directory under ``runs``."""
        return self.key.replace("/", "-")


@dataclass(frozen=True)
class Plan:
    """What to train; made by :func:`make_plan`.

    Attributes:
        recipe: the recipe that all runs share, but for what :meth:`recipe_of` sets.
        arms: without repetition.
        seeds: each arm has the seeds 0 to ``seeds - 1``.
    """

    recipe: Recipe
    arms: tuple[Arm, ...]
    seeds: int

    def runs(self) -> Iterator[PlannedRun]:
        """Every run, seed by seed, so that arms can be compared before all is done."""
        for seed in range(self.seeds):
            for arm in self.arms:
                yield PlannedRun(arm, seed)

    def recipe_of(self, run: PlannedRun) -> Recipe:
        """The recipe with a run's initialisation and order; its seed drives the weights, order, dropout and flips."""
        return replace(
            self.recipe,
            init=replace(self.recipe.init, scheme=run.arm.init, seed=run.seed),
            order=replace(self.recipe.order, kind=run.arm.order, seed=run.seed),
            train=replace(self.recipe.train, seed=run.seed),
        )

    def shared_recipe(self) -> dict[str, dict[str, Any]]:
        """The tables of what all runs share: one results file holds runs of one such recipe."""
        return shared_tables(self.recipe)


def make_plan(
    recipe: Recipe,
    inits: Sequence[str] = (),
    orders: Sequence[str] = (),
    seeds: int = SEEDS,
    epochs: int | None = None,
) -> Plan:
    """Every combination of initialisation and order, each with the seeds from 0.

    Args:
        recipe: from :func:`dettriton.train.load_recipe`.
        inits: of :data:`dettriton.train.recipe.INIT_SCHEMES`; by default the recipe's own.
        orders: of :data:`dettriton.train.recipe.ORDER_KINDS`; by default the recipe's own.
        seeds: runs an arm.
        epochs: instead of the recipe's.

    Raises:
        InputError: a name is unknown, a number is below 1, or the recipe does not allow so few epochs.
    """
    if seeds < 1:
        raise InputError(f"an arm needs at least one seed, got {seeds}")
    if epochs is not None:
        if epochs < 1:
            raise InputError(f"a training needs at least one epoch, got {epochs}")
        tables = recipe.with_epochs(epochs).to_dict()
        recipe = parse_recipe(tables, f"the recipe with epochs = {epochs}")
    inits, orders = inits or (recipe.init.scheme,), orders or (recipe.order.kind,)
    _require_known("initialisation", inits, INIT_SCHEMES)
    _require_known("order", orders, ORDER_KINDS)
    arms = tuple(dict.fromkeys(Arm(init, order) for order in orders for init in inits))
    return Plan(recipe, arms, seeds)


def shared_tables(recipe: Recipe) -> dict[str, dict[str, Any]]:
    """The recipe's tables without what a study varies: ``[init]``, ``[order]`` and the seed in ``[train]``."""
    tables = recipe.to_dict()
    del tables["init"], tables["order"], tables["train"]["seed"]
    return tables


def _require_known(what: str, names: Sequence[str], known: Sequence[str]) -> None:
    for name in names:
        if name not in known:
            raise InputError(f"there is no {what} {name!r}; choose among {', '.join(known)}")
