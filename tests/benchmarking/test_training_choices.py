"""A benchmark trains its cells as its config says; what a run refuses, it refuses before its first cell."""

import pytest

from mmfuse import benchmark
from mmfuse.types import MmfuseError


@pytest.mark.parametrize(
    ("training", "message"),
    [
        ({"method": {"name": "fgm", "modalities": ["text"]}}, "strategy .*: training.method: fgm: "),
        ({"optimizer": "adamv"}, "unknown optimizer 'adamv'"),
        ({"order": {"name": "balanced", "by": "nothing"}}, "training.order: balanced: by: legal"),
        ({"objectives": ["auxiliary"]}, "strategy .* has no loss of its own"),
    ],
)
def test_what_a_run_refuses_is_refused_before_the_first_cell(values, training, message):
    with pytest.raises(MmfuseError, match=message):
        benchmark({**values, "training": {**values["training"], **training}})
