"""What a device can do, found by trying it."""

import pytest
from networks import make_model  # sets MindSpore up for the CPU

from src.base.errors import InputError
from src.model_utils.device_target import check_products


def test_a_device_that_cannot_multiply_a_type_is_refused():
    assert make_model
    check_products("float32")
    check_products("float16")
    with pytest.raises(InputError, match="compute_dtype bfloat16: CPU devices like this one can't multiply"):
        check_products("bfloat16")
