"""Tables of sizes on a device: made once for each key, and anew for each captured graph, which keeps its own."""

from unittest import mock

import torch
from pretended_gpu import CUDA, PretendedGPU

from dettriton.ops import _tables
from dettriton.ops._tables import device_tables


def counted():
    made = []

    @device_tables(most=2)
    def squares(n: int) -> tuple[torch.Tensor, None]:
        made.append(n)
        return torch.tensor([i * i for i in range(n)]), None

    return squares, made


def test_a_table_is_made_once_for_a_key_and_the_last_ones_are_kept():
    squares, made = counted()
    cpu = torch.device("cpu")
    table, nothing = squares(4, cpu)
    assert table.tolist() == [0, 1, 4, 9] and nothing is None
    assert squares(4, cpu)[0] is table and made == [4]
    squares(2, cpu), squares(3, cpu), squares(4, cpu)
    assert made == [4, 2, 3, 4]


def test_a_device_gets_one_copy():
    squares, made = counted()
    with PretendedGPU().watched(), mock.patch("torch.cuda.is_current_stream_capturing", return_value=False):
        table, nothing = squares(4, CUDA)
        assert table.device == CUDA and nothing is None
        assert squares(4, CUDA)[0] is table and made == [4]
        assert _tables._captured == []


def test_a_captured_graph_has_tables_of_its_own_which_nothing_frees():
    squares, made = counted()
    with PretendedGPU().watched():
        first, second = squares(4, CUDA)[0], squares(4, CUDA)[0]
        assert first is not second and made == [4, 4]
        assert [on_device[0] for _, on_device in _tables._captured] == [first, second]
        assert all(on_host[0].device.type == "cpu" for on_host, _ in _tables._captured)
