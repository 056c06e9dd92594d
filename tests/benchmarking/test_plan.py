"""Which rows take part and how large they are: the same for everybody, and nothing is left out in silence."""

from typing import Any

import pytest

from mmfuse.benchmarking.config import QUICK, load_benchmark_config
from mmfuse.benchmarking.plan import (
    VARIANTS,
    Widths,
    choose_strategies,
    count_parameters,
    draw_trials,
    make_plan,
    solve_size,
)
from mmfuse.fusion import FUSIONS, build_fusion
from mmfuse.fusion.concat import ConcatFusion
from mmfuse.types import MmfuseError

WIDTHS = Widths(text_dim=48, image_dim=64, text_tokens=12, image_tokens=17)


def config_of(**values):
    return load_benchmark_config({"name": "b", "data": {"manifest": "m.yaml"}, **values})


def test_by_default_every_registered_strategy_and_variant_takes_part():
    rows = make_plan(config_of(), WIDTHS, [None]).rows
    assert set(rows) == set(FUSIONS.names()) | set(VARIANTS)
    assert list(rows)[:2] == ["text_only", "image_only"]
    assert {row.fusion["out_dim"] for row in rows.values()} == {128}


def test_what_a_plug_in_registers_is_a_row_without_another_edit(monkeypatch):
    class Mine(ConcatFusion):
        __doc__ = ConcatFusion.__doc__
        __module__ = "mmfuse_plugin_mine"

    monkeypatch.setitem(FUSIONS._classes, "mine", Mine)
    assert "mine" in make_plan(config_of(), WIDTHS, [None]).rows
    assert set(make_plan(config_of(preset="quick"), WIDTHS, [None]).rows) == {*QUICK, "mine"}


def test_the_quick_preset_has_one_seed_and_ten_rows():
    plan = make_plan(config_of(preset="quick", seeds=5), WIDTHS, [None])
    assert list(plan.rows) == list(QUICK)
    assert len(plan.cells) == 10


def test_unimodal_rows_are_there_though_nobody_asked_for_them():
    chosen = choose_strategies(config_of(strategies={"mine": {"name": "gated", "out_dim": 32}, "late": None}))
    assert list(chosen) == ["text_only", "image_only", "mine", "late"]
    assert chosen["mine"] == {"name": "gated", "out_dim": 32}
    assert chosen["late"]["out_dim"] == 128


def test_cells_are_rows_by_seeds_by_folds():
    plan = make_plan(config_of(strategies={"late": None}, seeds=2), WIDTHS, [0, 1, 2])
    assert len({cell.key for cell in plan.cells}) == len(plan.cells) == 3 * 2 * 3
    assert plan.cells[0].key == "late-seed0-fold0"  # the longest


def test_trials_come_first_and_are_the_same_for_every_row():
    plan = make_plan(config_of(strategies={"late": None}, seeds=1, tuning_trials=4), WIDTHS, [None])
    tuning = [cell for cell in plan.cells if cell.trial is not None]
    assert plan.cells[: len(tuning)] == tuning
    assert {(cell.row, cell.trial) for cell in tuning} == {(row, i) for row in plan.rows for i in range(4)}
    assert plan.trials[0] == {}
    assert plan.trials == draw_trials(4, 3e-4, 0.01)
    for trial in plan.trials[1:]:
        assert 3e-4 / 5 <= trial["learning_rate"] <= 3e-4 * 5
        assert 0.001 <= trial["weight_decay"] <= 0.1


def test_matching_shrinks_no_strategy_to_a_few_channels():
    """On wide encoders: a part that does not shrink with the rest would leave one channel to the result."""
    wide = Widths(text_dim=384, image_dim=1280, text_tokens=12, image_tokens=50)
    rows = make_plan(config_of(matching="parameters", match_to="cross_attention", width=48), wide, [None]).rows
    target = rows["cross_attention"].parameters
    for label, row in rows.items():
        assert row.fusion["out_dim"] >= 16, label
        assert row.parameters == pytest.approx(target, rel=0.06), label


@pytest.mark.parametrize("what", ["parameters", "macs"])
def test_sizes_are_matched_within_five_percent_or_marked(what):
    rows = make_plan(config_of(matching=what, width=96), WIDTHS, [None]).rows
    target = getattr(rows["concat"], what)
    for row in rows.values():
        built: Any = build_fusion(row.fusion["name"], 48, 64, {k: v for k, v in row.fusion.items() if k != "name"})
        assert row.parameters == sum(p.numel() for p in built.parameters())
        assert row.macs == (built.macs(12, 17) if "tokens" in built.reads else built.macs(1, 1))
        if row.label == "concat":
            assert row.matched == "native"
        elif row.matched == "matched":
            assert abs(getattr(row, what) / target - 1) <= 0.05
        else:
            assert row.matched.startswith("nearest")
            assert abs(getattr(row, what) / target - 1) > 0.05
    pooled = [row for row in rows.values() if row.interaction != "token" and row.label != "concat"]
    assert [row.label for row in pooled if row.matched != "matched"] == []


def test_a_strategy_without_a_size_says_so(monkeypatch):
    monkeypatch.setattr(FUSIONS.get("film"), "size", None)
    rows = make_plan(config_of(matching="parameters", strategies={"film": None, "concat": None}), WIDTHS, [None]).rows
    assert rows["film"].matched == "native: it has no size"
    assert rows["text_only"].matched == "matched"


def test_the_size_nearest_to_the_target_is_found_among_legal_ones():
    def build(size):
        if size % 4:
            raise MmfuseError("heads")
        return size * size

    assert solve_size(build, 100) == 8  # 64 is nearer than 144
    assert solve_size(build, 130) == 12
    assert solve_size(build, 1) == 4
    assert solve_size(build, 10**9, largest=400) == 400
    with pytest.raises(MmfuseError):
        solve_size(lambda size: build(1), 10)


def test_parameters_are_counted_without_building(monkeypatch):
    assert count_parameters({"name": "concat", "out_dim": 100_000}, 512, 512) > 10**10


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"strategies": {"gatd": None}}, "unknown fusion 'gatd'.*gated"),
        ({"strategies": {"a": {"name": "gated", "droput": 0.1}}}, "droput.*dropout"),
        ({"strategies": {"a/b": {"name": "gated"}}}, "row name 'a/b'"),
        ({"matching": "macs", "match_to": "concta"}, "match_to: no row 'concta'.*concat"),
        ({"matching": "flops"}, "matching.*macs"),
        ({"fusion": {"name": "gated"}}, "strategies"),
        ({"seed": 3}, "seed: no such key.*seeds"),
        ({"training": {"modality_dropout": {"text": 0.9, "image": 0.9}}}, "at most 1"),
    ],
)
def test_what_is_not_legal_is_one_line(values, message):
    with pytest.raises(MmfuseError, match=message) as error:
        make_plan(config_of(**values), WIDTHS, [None])
    assert "\n" not in str(error.value)
