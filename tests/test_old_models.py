"""Model folders that an older mmfuse wrote load, and predict what they predicted then.

`fixtures/models_0_1/make.py` made them, at the commit that it names. A change that fails here needs a way to read the
old folder (`mmfuse.model`: FORMAT_VERSION), not a new fixture.
"""

import json
import math
from pathlib import Path

import pytest

FIXTURES = Path(__file__).parent / "fixtures" / "models_0_1"


LAST_DIGIT = {"classification": 1e-6, "multilabel": 1e-6, "captioning": 1e-4}
"""Of a predictions file, where another processor, which sums in another order, may round to the other side."""


def same(found, expected, last_digit: float) -> bool:
    """Equal, but for one in the last digit of a number."""
    if isinstance(expected, dict):
        return list(found) == list(expected) and all(same(found[k], expected[k], last_digit) for k in expected)
    if isinstance(expected, list):
        return len(found) == len(expected) and all(same(a, b, last_digit) for a, b in zip(found, expected, strict=True))
    if isinstance(expected, float):
        return isinstance(found, float) and math.isclose(found, expected, rel_tol=0, abs_tol=1.1 * last_digit)
    return found == expected


@pytest.mark.parametrize("kind", LAST_DIGIT)
def test_an_old_model_predicts_what_it_did(kind, mmfuse, tmp_path):
    code, _, complaint = mmfuse("predict", FIXTURES / kind, FIXTURES / "inputs", "--out", tmp_path / "out.jsonl")
    assert code == 0, complaint
    found, expected = (p.read_text().splitlines() for p in (tmp_path / "out.jsonl", FIXTURES / f"{kind}.jsonl"))
    assert len(found) == len(expected) == 6
    for line, was in zip(found, expected, strict=True):
        assert line == was or same(json.loads(line), json.loads(was), LAST_DIGIT[kind]), f"{line}\nwas\n{was}"


def test_what_counts_as_the_same():
    was = {"label": "M", "probabilities": {"F": 0.393345, "M": 0.606655}, "present": ["text"]}
    assert same(was | {"probabilities": {"F": 0.393346, "M": 0.606654}}, was, 1e-6)
    assert not same(was | {"probabilities": {"F": 0.393347, "M": 0.606653}}, was, 1e-6)
    assert not same(was | {"label": "F"}, was, 1e-6)
    assert not same(was | {"present": ["text", "image"]}, was, 1e-6)
