"""Where a re-run can begin: the newest state that two trainings both kept, and that is the same in both."""

from collections.abc import Sequence

from dettriton.compare._observed import Snapshot
from dettriton.compare._recorded import Comparison
from dettriton.compare._sides import Side
from dettriton.compare._state import differing_groups, state_groups
from dettriton.errors import DettritonError
from dettriton.train._run import Run
from dettriton.train.segments import load_state


def newest_shared(comparison: Comparison, runs: Sequence[Run], most: int) -> tuple[int, Snapshot] | None:
    """The newest state in both directories, of at most ``most`` steps done, that has the same bits in both.

    Checkpoints and segments count alike. A kept state that is damaged, or is none of its run's model and optimizer, is
    passed over.

    Returns:
        How many steps are done, and the state; None if there is none, so that the re-run begins at step 0.
    """
    a, b = comparison.a, comparison.b
    if comparison.same_init is False:
        return None
    for step in sorted(_kept(a) & _kept(b), reverse=True):
        if step > most or (comparison.same_recipe and _leaves_differ(a, b, step)):
            continue
        first, second = (_state(side, run, step) for side, run in zip((a, b), runs, strict=True))
        if first is not None and second is not None and not differing_groups(_groups(first), _groups(second)):
            return step, first
    return None


def _kept(side: Side) -> set[int]:
    segments = side.segments
    ends = () if segments is None else (segments.bounds(i)[1] for i in range(segments.count))
    return {*side.checkpoints, *ends}


def _leaves_differ(a: Side, b: Side, step: int) -> bool:
    """Whether the segments' indices tell, without reading a state, that the trainings had parted."""
    found = [_leaf(side, step) for side in (a, b)]
    return None not in found and found[0] != found[1]


def _leaf(side: Side, step: int) -> str | None:
    index = None if side.segments is None else side.segments.index_of(step)
    return None if index is None else side.segments.leaves[index]


def _state(side: Side, run: Run, step: int) -> Snapshot | None:
    try:
        kept = side.checkpoints.get(step) or load_state(side.segments_folder, step, _leaf(side, step))
        run.require_state(kept.model, kept.optimizer, kept.optimizer_scalars, step)
    except DettritonError:
        return None
    return Snapshot(kept.model, kept.optimizer, kept.optimizer_scalars)


def _groups(state: Snapshot) -> dict:
    return state_groups(state.model, state.optimizer, state.scalars, None)
