"""The random state of modules that draw numbers: a Philox key and a step, plain integers outside ``state_dict``."""

import torch

from dettriton.exact.philox import Stream


class Drawing:
    """A module whose numbers are a function of (seed, stream, step, element), on any device.

    Under ``torch.compile`` set ``torch._dynamo.config.allow_unspec_int_on_nn_module``, or torch makes a graph for each
    step.

    Attributes:
        seed, stream: the key; two modules with the same key draw the same numbers.
        step: which numbers of the key come next. It is not part of ``state_dict``: a loop that resumes sets it with
            :func:`set_random_state`.
    """

    def seeded(self, seed: int, stream: int, step: int = 0) -> None:
        """Go to a step of a key."""
        self.seed, self.stream, self.step = seed, stream, step

    def next_numbers(self, *, advance: bool) -> Stream:
        """The numbers of this step; ``advance`` goes on to the next one."""
        numbers = Stream(self.seed, self.stream, self.step)
        self.step += int(advance)
        return numbers


def set_random_state(model: torch.nn.Module, seed: int, step: int) -> None:
    """Give each module of ``model`` that draws numbers, in ``model.modules()`` order, stream 0, 1, 2... and this state.

    These are Dropout, MultiheadAttention and the fractional pools. Called before each training step, it makes every
    mask and every window a function of (seed, step) alone, so that a resumed run draws what the uninterrupted one drew.
    A model that runs ``k`` training forwards a step must pass ``step * k``, otherwise neighbouring steps share masks.

    Args:
        model: any module; without one that draws numbers nothing happens.
        seed: the run's seed.
        step: the integer step about to be computed.
    """
    for stream, module in enumerate(m for m in model.modules() if isinstance(m, Drawing)):
        module.seeded(seed, stream, step)
