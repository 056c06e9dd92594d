import json

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn
from transformers import BertConfig, BertModel, BertTokenizer

from mmfuse.evaluation.report_metrics import REPORT_METRICS, build_report_metric, score_reports
from mmfuse.types import MmfuseError

CANDIDATES = ["Small effusion. Nodule.", "No effusion.", "Cardiomegaly."]
REFERENCES = ["Small effusion.", "Pleural effusion.", "Cardiomegaly."]


def test_chest_rules_by_hand():
    """Hits: effusion, cardiomegaly. False alarms: nodule, No Finding. Miss: effusion."""
    score = score_reports("chest_rules", CANDIDATES, REFERENCES, ["a", "b", "c"], 200)["rule_label_f1"]
    assert score["value"] == pytest.approx(4 / 7)
    assert (score["low"], score["note"]) == (None, "3 groups; 10 are needed")
    more = score_reports("chest_rules", CANDIDATES * 5, REFERENCES * 5, [str(i) for i in range(15)], 1)["rule_label_f1"]
    assert 0 <= more["low"] < more["value"] < more["high"] <= 1
    assert more["value"] == pytest.approx(score["value"])
    assert score_reports("chest_rules", [], [], [], 0)["rule_label_f1"]["value"] is None


@pytest.fixture(scope="module")
def chexbert(tmp_path_factory):
    """Random weights under the published names."""
    folder = tmp_path_factory.mktemp("chexbert")
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "no", "effusion", "nodule", "cardiomegaly", "small", "."]
    (folder / "vocab.txt").write_text("\n".join(words))
    BertTokenizer(str(folder / "vocab.txt")).save_pretrained(folder)
    config = BertConfig(
        vocab_size=len(words), hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16
    )
    torch.manual_seed(0)
    bert = BertModel(config)
    heads = [nn.Linear(16, classes) for classes in [4] * 13 + [2]]
    weights = {f"bert.{name}": w for name, w in bert.state_dict().items()}
    weights["bert.embeddings.position_ids"] = torch.arange(512)[None]
    for i, head in enumerate(heads):
        weights |= {f"linear_heads.{i}.weight": head.weight.detach(), f"linear_heads.{i}.bias": head.bias.detach()}
    save_file({name: w.contiguous() for name, w in weights.items()}, folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps(config.to_dict()))
    return folder, bert.eval(), heads


def test_chexbert_reads_the_first_token_of_each_report(chexbert):
    folder, bert, heads = chexbert
    metric = build_report_metric(f"chexbert:{folder}")
    labels = metric.labels(CANDIDATES, batch_size=2)  # padded with another report, or alone
    for text, row in zip(CANDIDATES, labels, strict=True):
        with torch.inference_mode():
            first = bert(**metric.tokenizer(text, return_tensors="pt")).last_hidden_state[0, 0]
            classes = np.array([int(head(first).argmax()) for head in heads])
        assert row.tolist() == np.isin(classes, [1, 3]).tolist()
    written, true = metric.labels(CANDIDATES), metric.labels(REFERENCES)
    score = score_reports(f"chexbert:{folder}", CANDIDATES, REFERENCES, list("abc"), 0)["chexbert_f1"]
    assert score["value"] == pytest.approx(2 * (written & true).sum() / (written.sum() + true.sum()))
    assert 0 < written.sum() < written.size


def test_a_metric_of_ones_own_with_a_value_for_each_row():
    class Length:
        key = "length_ratio"

        def __call__(self, candidates, references):
            return np.array([len(c) / len(r) for c, r in zip(candidates, references, strict=True)])

    REPORT_METRICS.register("length_ratio")(Length)
    try:
        groups = [str(i) for i in range(40)]
        score = score_reports("length_ratio", ["ab", "abcd"] * 20, ["ab"] * 40, groups, 500)["length_ratio"]
        assert score["value"] == pytest.approx(1.5)
        half = 2.0227 * 0.5 / 39**0.5  # t with 39 degrees of freedom, and no end of the range
        assert (score["low"], score["high"]) == pytest.approx((1.5 - half, 1.5 + half), abs=1e-4)
    finally:
        del REPORT_METRICS._classes["length_ratio"]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("chest_rule", "unknown report_metric 'chest_rule'.*did you mean 'chest_rules'"),
        ("chest_rules:weights", "'chest_rules:weights': write chest_rules"),
        ("chexbert", "'chexbert': write chexbert:FOLDER"),
        ("chexbert:nowhere", "chexbert:nowhere: there is no config.json"),
    ],
)
def test_what_is_wrong_with_a_name(name, message):
    with pytest.raises(MmfuseError, match=message):
        build_report_metric(name)


def test_other_weights_are_refused(chexbert, tmp_path):
    folder = chexbert[0]
    for name in ("config.json", "vocab.txt", "tokenizer_config.json"):
        (tmp_path / name).write_bytes((folder / name).read_bytes())
    save_file({"a": torch.zeros(1)}, tmp_path / "model.safetensors")
    with pytest.raises(MmfuseError, match=r"model\.safetensors is not CheXbert's"):
        build_report_metric(f"chexbert:{tmp_path}")
