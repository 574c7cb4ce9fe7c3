"""Keeping the segments of a run while it is trained."""

from pathlib import Path

from dettriton.errors import InputError
from dettriton.files import remove_partial, save_safetensors
from dettriton.train._commitment import Commitment
from dettriton.train._run import Run
from dettriton.train.segments import FOLDER, INDEX, Index, read_index, state_of, state_path


class SegmentWriter:
    """Keeps the states of a run that is being trained, and their index.

    Args:
        folder: where the index lies.
        index: of the segments that are kept already.
        every: steps in a segment.
        steps: of the whole training.
        done: steps done before, by the run that is resumed.

    Raises:
        InputError: the folder does not hold the segments of these steps.
    """

    def __init__(self, folder: Path, index: Index, every: int, steps: int, done: int):
        self._folder, self._index, self._every, self._steps = folder, index, every, steps
        needed = -(-done // every) if done == steps else done // every
        leaves = index.commitment.leaves[:needed]
        if len(leaves) < needed:
            raise InputError(f"{folder} lacks segments of the first {done} steps; train again from the start")
        self._commit(leaves)

    def after_step(self, run: Run, step: int, link: str) -> None:
        """Keep the state after ``step`` steps if a segment ends there."""
        if step % self._every and step != self._steps:
            return
        state = state_of(run, step, link)
        save_safetensors(state_path(self._folder, step), state.tensors(), state.metadata())
        self._commit((*self._index.commitment.leaves, state.digest()))

    def _commit(self, leaves: tuple[str, ...]) -> None:
        commitment = Commitment.of(self._every, self._steps, leaves)
        self._index = Index(self._index.recipe_digest, self._index.init_digest, commitment)
        self._index.write(self._folder)


def open_segments(directory: Path, run: Run, every: int | None, done: int) -> SegmentWriter | None:
    """The writer of a run's segments; None where none are wanted.

    Args:
        directory: of the run.
        run: whose segments they are.
        every: steps in a segment, or None.
        done: steps done before, by the run that is resumed.

    Raises:
        InputError: the run was begun with other segments.
    """
    folder = directory / FOLDER
    kept = read_index(folder, unfinished=True) if (folder / INDEX).exists() else None
    begun = None if kept is None else kept.commitment.every
    if begun != every and (kept is not None or done):
        raise InputError(
            f"the run in {directory} was begun {_words(begun)} and is now asked for {_words(every)}: resume with the "
            "same, or choose another directory (--out)"
        )
    if every is None:
        return None
    recipe_digest = run.recipe.digest()
    if kept is not None and (kept.recipe_digest, kept.init_digest) != (recipe_digest, run.init_digest):
        raise InputError(f"{folder} holds segments of another recipe or initialisation; move it away")
    folder.mkdir(exist_ok=True)
    for step in (*range(every, run.total_steps, every), run.total_steps):
        remove_partial(state_path(folder, step))
    remove_partial(folder / INDEX)
    own = kept or Index(recipe_digest, run.init_digest, Commitment.of(every, run.total_steps, ()))
    return SegmentWriter(folder, own, every, run.total_steps, done)


def _words(every: int | None) -> str:
    return "without segments" if every is None else f"with --segments {every}"
