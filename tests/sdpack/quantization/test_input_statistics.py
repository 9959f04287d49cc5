"""What a layer's outputs are summed over; its statistics are tested where a graph is observed."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest
import torch
from sdpack.quantization.input_statistics import rows_of

from tests.sdpack.graphs import convolution

RNG = np.random.default_rng(0)


@pytest.mark.parametrize(("stride", "padding"), [(1, 1), (2, 1), (1, 0), (2, 0)])
def test_rows_of_a_convolution_are_what_its_kernel_sees(stride: int, padding: int) -> None:
    kernel = RNG.standard_normal((24, 16, 3, 3)).astype(np.float32)
    (node,) = convolution(kernel).graph
    node.attributes["pads"] = ir.AttrInt64s("pads", [padding] * 4)
    node.attributes["strides"] = ir.AttrInt64s("strides", [stride] * 2)
    x = RNG.standard_normal((2, 16, 7, 9)).astype(np.float32)
    rows = rows_of(node, x)
    assert rows is not None
    wanted = torch.nn.functional.conv2d(
        torch.from_numpy(x), torch.from_numpy(kernel), stride=stride, padding=padding
    )
    seen = rows @ kernel.reshape(24, -1).T
    assert seen == pytest.approx(wanted.permute(0, 2, 3, 1).reshape(-1, 24).numpy(), abs=1e-4)


def test_a_grouped_convolution_has_no_rows() -> None:
    (node,) = convolution(RNG.standard_normal((24, 16, 3, 3)).astype(np.float32)).graph
    node.attributes["group"] = ir.AttrInt64("group", 2)
    assert rows_of(node, np.zeros((1, 32, 4, 4), np.float32)) is None
