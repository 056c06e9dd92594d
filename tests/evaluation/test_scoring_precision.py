"""A model says in what it was scored, and is evaluated in that unless another precision is asked."""

import json

import pytest
import torch
from accelerate import PartialState

from mmfuse.config import TextEncoderConfig
from mmfuse.encoders.text import build_text_encoder
from mmfuse.evaluation.precision import scoring_precision
from mmfuse.model import FusionModel
from mmfuse.precision import BF16, FP32, Precision, at_precision
from mmfuse.predict import precision as chosen
from mmfuse.types import MmfuseError

MIXED = Precision("bf16", "fp32", "fp32")


@pytest.fixture
def tiny_model() -> FusionModel:
    sizes = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1, "intermediate_size": 8}
    text = build_text_encoder(TextEncoderConfig(name="bert", pretrained=False, options=sizes, max_length=8), ["a b"])
    return FusionModel(
        text, None, {"name": "text_only", "out_dim": 4}, {"y": {"type": "classification", "labels": ["u", "v"]}}
    )


class Reported:
    """What is asked of a model."""

    def __init__(self, scored_in: Precision | None):
        self.scored_in = scored_in

    def parameters(self):
        return iter([torch.zeros(1)])


@pytest.mark.parametrize(
    ("own", "asked", "precision", "said"),
    [
        (None, None, FP32, None),
        (None, "fp32", FP32, None),
        (None, "bf16", BF16, "precision bf16; the model's own report is in fp32"),
        (MIXED, None, MIXED, "precision text bf16, image fp32, fusion and heads fp32, as in the model's own report"),
        (
            MIXED,
            "fp32",
            FP32,
            "precision fp32; the model's own report is in text bf16, image fp32, fusion and heads fp32",
        ),
    ],
)
def test_a_report_says_what_it_was_computed_in(own, asked, precision, said, monkeypatch):
    monkeypatch.setattr(chosen, "computes_bf16", lambda device: True)
    assert scoring_precision(asked, Reported(own), PartialState()) == (precision, said)  # type: ignore[arg-type]


def test_a_machine_without_bf16_scores_as_the_report_did_and_says_what_that_costs(monkeypatch):
    monkeypatch.setattr(chosen, "computes_bf16", lambda device: False)
    found = scoring_precision(None, Reported(MIXED), PartialState())  # type: ignore[arg-type]
    slow = "precision bf16: this CPU has no instructions for it; fp32 would be faster"
    assert found == (MIXED, f"{slow}, as in the model's own report")


def test_a_model_folder_holds_it_and_may_be_anyones(tiny_model, tmp_path):
    assert "precision" not in tiny_model.config()
    tiny_model.scored_in = MIXED
    tiny_model.save_pretrained(tmp_path)
    assert FusionModel.from_pretrained(tmp_path).scored_in == MIXED
    config = json.loads((tmp_path / "config.json").read_text())
    for strange in ("bf16", {"text": "bf16"}, {**MIXED.to_dict(), "rest": ["int8"]}, [], None):
        (tmp_path / "config.json").write_text(json.dumps({**config, "precision": strange}))
        with pytest.raises(MmfuseError, match=r"config\.json: precision: .*: fp32 or bf16 is expected of "):
            FusionModel.from_pretrained(tmp_path)


def test_a_precision_holds_for_a_while(tiny_model):
    products = torch.get_float32_matmul_precision()

    def fail():
        with at_precision(tiny_model, MIXED):
            assert tiny_model.precision == MIXED
            assert torch.get_float32_matmul_precision() == products  # on a CPU it would change products
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert tiny_model.precision is None
    with at_precision(tiny_model, FP32):
        assert tiny_model.precision is None
