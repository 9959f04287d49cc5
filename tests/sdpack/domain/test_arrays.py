from typing import get_args

import numpy as np
from sdpack.domain.arrays import Float32Array, Float64Array


def test_each_name_means_its_dtype() -> None:
    for alias, dtype in ((Float32Array, np.float32), (Float64Array, np.float64)):
        (_, element) = get_args(alias)
        assert get_args(element) == (dtype,)
