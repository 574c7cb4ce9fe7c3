"""How many readers of a tensor send it gradients: autograd adds three or more in an order that is not written anywhere."""

from collections import Counter

import torch


def most_readers(y: torch.Tensor) -> int:
    """The largest number of gradients that autograd adds up at any one place of the graph behind ``y``."""
    seen, waiting, arriving = set(), [y.grad_fn], Counter()
    while waiting:
        node = waiting.pop()
        if node in seen:
            continue
        seen.add(node)
        for source, number in node.next_functions:
            if source is not None:
                arriving[source, number] += 1
                waiting.append(source)
    return max(arriving.values())
