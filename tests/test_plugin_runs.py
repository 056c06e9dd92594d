"""What is asserted of plug-ins in training can fail."""

import pytest
from plugin_runs import STEPS, assert_works, tiny_run

FUSION = '''
import os
import torch
from mmfuse.fusion.concat import ConcatFusion
from mmfuse.fusion import FUSIONS

@FUSIONS.register("odd")
class Odd(ConcatFusion):
    """Concatenation that counts its forward passes.

    Reference: none.
    Differs: it remembers, or asks which process it is in.
    Prefer when: testing.
    """

    def __init__(self, text_dim, image_dim, out_dim=8, *, memory=0.0, rank=0.0):
        super().__init__(text_dim, image_dim, out_dim, dropout=0.0)
        self.memory, self.rank, self.passes = memory, rank, 0

    def forward(self, text, image):
        out = super().forward(text, image)
        self.passes += self.training
        factor = 1 + self.memory * self.passes + self.rank * int(os.environ.get("RANK", 0))
        return out._replace(pooled=out.pooled * factor)
'''


@pytest.fixture
def odd(tmp_path):
    (tmp_path / "odd.py").write_text(FUSION)
    return tmp_path / "odd.py"


@pytest.mark.heavy
def test_a_plugin_without_defect_is_trained_killed_and_resumed(odd, tmp_path):
    assert len(assert_works(tiny_run(tmp_path, odd, fusion={"name": "odd"}), "odd", "fusions")) == STEPS


@pytest.mark.heavy
@pytest.mark.parametrize(("defect", "said"), [("memory", "when resumed"), ("rank", "by two processes")])
def test_a_defect_is_seen(odd, tmp_path, defect, said):
    with pytest.raises(AssertionError, match=said):
        assert_works(tiny_run(tmp_path, odd, fusion={"name": "odd", defect: 0.1}), "odd", "fusions")
