"""Presets: what they set, and that every key of them can be set otherwise."""

import pytest
import yaml
from typer.testing import CliRunner

from mmfuse.benchmarking.config import load_benchmark_config
from mmfuse.cli import app
from mmfuse.config import config_from_dict, config_to_dict
from mmfuse.config.presets import PRESETS, preset, preset_text
from mmfuse.types import MmfuseError

MINE = {"name": "mine", "data": {"manifest": "m.yaml"}}


@pytest.mark.parametrize("name", PRESETS)
def test_what_is_printed_is_what_is_set(name):
    said = CliRunner().invoke(app, ["config", "--preset", name])
    assert said.exit_code == 0
    assert said.output.strip() == preset_text(name).strip()
    written = yaml.safe_load(said.output)
    assert written == {"preset": name, **preset(name)}
    assert config_from_dict({**MINE, "preset": name}) == config_from_dict({**MINE, **written})


@pytest.mark.parametrize("name", PRESETS)
def test_a_run_folder_has_it_written_out(name):
    config = config_from_dict({**MINE, "preset": name}, ["training.epochs=3", "training.patience=null"])
    assert (config.training.epochs, config.training.patience) == (3, None)
    assert config.training.batch_size == preset(name)["training"]["batch_size"]
    values = config_to_dict(config)
    assert config_from_dict(values) == config
    assert config_to_dict(config_from_dict({**values, "preset": None})) == {**values, "preset": None}


def test_a_copy_is_given():
    preset("quick")["training"]["epochs"] = 99
    assert preset("quick")["training"]["epochs"] != 99


@pytest.mark.parametrize(
    ("given", "adapter", "frozen"),
    [
        ("text_encoder.frozen=true", None, True),
        ("text_encoder.adapter=bit_fit", "bit_fit", False),
        ("text_encoder.adapter={name: last_layers, layers: 1}", {"name": "last_layers", "layers": 1}, False),
        ("text_encoder.adapter=null", None, False),
        ("text_encoder.pretrained=false", None, False),
    ],
)
def test_what_was_chosen_counts(given, adapter, frozen):
    config = config_from_dict({**MINE, "preset": "balanced"}, [given])
    assert (config.text_encoder.adapter, config.text_encoder.frozen) == (adapter, frozen)
    assert config_from_dict(config_to_dict(config)) == config


def test_the_last_one_named_counts_and_keys_that_nothing_reads_fall_away():
    config = config_from_dict({**MINE, "preset": "balanced"}, ["preset=quick", "image_encoder.name=mmfuse-model:OLD"])
    assert config.text_encoder.frozen
    assert config.image_encoder.size is None
    assert config.image_encoder.frozen
    assert config_from_dict({**MINE, "preset": "quick"}, ["fusion.name=late"]).fusion == {"name": "late"}


def test_a_users_key_that_nothing_reads_is_still_refused():
    with pytest.raises(MmfuseError, match=r"command line: text_encoder\.adapter has no effect with"):
        config_from_dict({**MINE, "preset": "quick"}, ["text_encoder.adapter=bit_fit"])


def test_unknown_ones_are_refused():
    with pytest.raises(
        MmfuseError, match=r"preset: 'quik' is not legal; legal: quick, balanced \(did you mean 'quick'"
    ):
        config_from_dict({**MINE, "preset": "quik"})
    with pytest.raises(MmfuseError, match="preset: 'best' is not legal"):
        preset("best")


def test_a_benchmarks_preset_is_its_own():
    values = {"name": "b", "data": {"manifest": "m.yaml"}, "preset": "quick"}
    assert load_benchmark_config(values).text_encoder.name == "bert-base-uncased"
