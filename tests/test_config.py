"""The config is read strictly: no typo passes, and every error names the key and what is legal."""

import dataclasses
import json
import os
import re
from pathlib import Path

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from mmfuse.benchmarking.config import load_benchmark_config
from mmfuse.config import Config, config_from_dict, config_to_dict, load_config, read_yaml, schema
from mmfuse.types import MmfuseError

MINIMAL = {"name": "run", "data": {"manifest": "m.yaml"}}


def config(values=None, *overrides):
    return config_from_dict({**MINIMAL, **(values or {})}, overrides)


def complaint(values=None, *overrides):
    with pytest.raises(MmfuseError) as error:
        config(values, *overrides)
    assert "\n" not in str(error.value)
    return str(error.value)


@pytest.mark.parametrize(
    ("values", "key", "near"),
    [
        ({"trainig": {}}, "trainig: no such key", "did you mean 'training'?"),
        ({"training": {"epoch": 3}}, "training.epoch: no such key", "did you mean 'epochs'?"),
        (
            {"training": {"modality_dropout": {"txt": 0.1}}},
            "training.modality_dropout.txt: no such key",
            "did you mean 'text'?",
        ),
        ({"tasks": {"view": {"wieght": 2}}}, "tasks.view.wieght: no such key", "did you mean 'weight'?"),
        ({True: 1}, "True: no such key", "legal: name"),  # yes: 1
    ],
)
def test_an_unknown_key_is_named_with_the_nearest_legal_one(values, key, near):
    message = complaint(values)
    assert message.startswith(f"config: {key}; legal: ")
    assert near in message


@pytest.mark.parametrize("name", [field.name for field in dataclasses.fields(Config)])
def test_a_key_with_a_letter_too_many_is_never_taken(name):
    assert f"did you mean {name!r}?" in complaint({f"{name}x": None})


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"training": 3}, "training: a mapping"),
        ({"tasks": ["view"]}, "tasks: a mapping"),
        ({"tasks": {"view": 3}}, "tasks.view: a mapping"),
        ({"tasks": {"view": None}}, "tasks.view: "),
        ({"training": None}, "training: "),
        ({"fusion": "gated"}, "fusion: a mapping (key: value lines) is expected"),
        ({"training": {"epochs": "many"}}, "training.epochs: Value 'many'"),
        ({"training": {"epochs": 1.5}}, "training.epochs: Value '1.5'"),
        ({"data": {"manifest": "m", "tasks": "view"}}, "data.tasks: "),
    ],
)
def test_a_value_of_the_wrong_kind_names_its_key(values, message):
    assert complaint(values).startswith(f"config: {message}")


def bounded_keys(cls=Config, prefix=""):
    for field in dataclasses.fields(cls):
        nested = {"data", "text_encoder", "image_encoder", "training", "modality_dropout", "cache"}
        if field.name in nested:
            yield from bounded_keys(field.default_factory, f"{prefix}{field.name}.")
        for bound, step in (("low", -1), ("high", 1)):
            if field.metadata.get(bound) is not None:
                yield f"{prefix}{field.name}", field.metadata[bound] + step


@pytest.mark.parametrize(("key", "value"), list(bounded_keys()))
def test_a_value_out_of_range_names_the_key_and_the_range(key, value):
    message = complaint(None, f"{key}={value}")
    assert key in message
    assert "out of range; it must be at least" in message


def test_there_are_bounds_to_test():
    assert len(list(bounded_keys())) > 15


def test_the_bounds_themselves_are_legal():
    assert config(None, "training.warmup=1", "training.modality_dropout.text=0.9").training.warmup == 1
    assert config({"tasks": {"view": {"weight": 0}}}).tasks["view"].weight == 0
    assert "tasks.view.weight: -1.0 is out of range" in complaint({"tasks": {"view": {"weight": -1}}})


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("text_encoder.pooling=max", "text_encoder.pooling: 'max' is not legal; legal: mean, cls"),
        ("image_encoder.resize=squish", "did you mean 'squash'?"),
        ("training.schedule=cosin", "did you mean 'cosine'?"),
        ("training.mixed_precision=fp8", "legal: auto, bf16, fp16"),
    ],
)
def test_a_choice_tells_what_is_legal(override, message):
    assert message in complaint(None, override)


def test_modality_dropout_cannot_hide_more_than_every_row():
    assert config(None, "training.modality_dropout={text: 0.5, image: 0.5}").training.modality_dropout.image == 0.5
    message = complaint(None, "training.modality_dropout={text: 0.6, image: 0.5}")
    assert (
        "training.modality_dropout: text and image of a row are never both hidden, so text 0.6 and image 0.5 must sum"
        in message
    )


@pytest.mark.parametrize("size", ["[64]", "[64,64,3]", "[4,64]", "64"])
def test_an_image_size_is_height_and_width(size):
    assert "image_encoder.size" in complaint(None, f"image_encoder.size={size}")


@pytest.mark.parametrize(
    ("values", "message"),
    [({"data": {"manifest": "m"}}, "name is missing"), ({"name": "run"}, "data.manifest is missing: path of the data")],
)
def test_what_has_no_default_must_be_given(values, message):
    with pytest.raises(MmfuseError, match=message):
        config_from_dict(values)


def test_overrides_are_yaml_and_come_last():
    made = config(
        {"training": {"epochs": 3, "batch_size": 8}, "tasks": {"view": {"weight": 3.0}}},
        "training.epochs=5",
        "training.learning_rate=1e-4",
        "training.patience=null",
        "data.tasks=[view, finding]",
        "tasks.view.class_weights=balanced",
        "training.epochs=6",
    )
    assert (made.training.epochs, made.training.batch_size) == (6, 8)
    assert made.training.learning_rate == 1e-4
    assert made.training.patience is None
    assert made.data.tasks == ["view", "finding"]
    assert (made.tasks["view"].weight, made.tasks["view"].class_weights) == (3.0, "balanced")


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("training.epochs", "'training.epochs': an override is key=value, for example training.epochs=3"),
        ("--fast", "'--fast': an override is key=value"),
        ("training.epoch=3", "command line: training.epoch: no such key; .*did you mean 'epochs'"),
        ("training.epochs=[1", "command line: while parsing"),
        ("training.epochs=many", "command line: training.epochs: Value 'many'"),
        ("=3", "command line: : no such key"),
        ("image_encoder.size=64", "command line: image_encoder.size: a list is expected$"),
        ("data.tasks=finding", "command line: data.tasks: a list is expected$"),
        ("plugins=mine.py", "command line: plugins: a list is expected$"),
        ("fusion=concat", r"command line: fusion: a mapping \(key: value lines\) is expected$"),
        ("text_encoder.options=3", r"command line: text_encoder.options: a mapping \(key: value lines\) is expected$"),
    ],
)
def test_an_override_that_is_not_legal_says_so(override, message):
    with pytest.raises(MmfuseError, match=message):
        config(None, override)


@pytest.mark.parametrize(
    ("in_file", "overrides", "fusion"),
    [
        (None, [], {"name": "concat"}),
        ({"dropout": 0.5}, [], {"name": "concat", "dropout": 0.5}),
        ({"name": "gated", "dropout": 0.5}, [], {"name": "gated", "dropout": 0.5}),
        ({"name": "gated", "dropout": 0.5}, ["fusion.out_dim=8"], {"name": "gated", "dropout": 0.5, "out_dim": 8}),
        ({"name": "gated", "dropout": 0.5}, ["fusion.name=late"], {"name": "late"}),
        ({"name": "gated", "dropout": 0.5}, ["fusion.name=late", "fusion.out_dim=8"], {"name": "late", "out_dim": 8}),
        ({"name": "gated", "dropout": 0.5}, ["fusion.name=gated"], {"name": "gated", "dropout": 0.5}),
    ],
)
def test_options_of_another_strategy_do_not_carry_over(in_file, overrides, fusion):
    assert config({"fusion": in_file} if in_file else None, *overrides).fusion == fusion


def test_numbers_are_numbers_and_data_root_is_kept(tmp_path):
    path = tmp_path / "c.yaml"
    path.write_text(
        "name: run\ndata: {manifest: '${data_root}/m.yaml', root: '${data_root}'}\n"
        "training: {learning_rate: 1e-4, weight_decay: 5E-2}\n"
        "fusion: {name: late, dropout: 1e-1}\n"
        "text_encoder: {pretrained: false, options: {layer_norm_eps: 1e-6, a: '${x}'}}\n"
    )
    made = load_config(path, ["output_dir=${data_root}/runs"])
    assert (made.training.learning_rate, made.training.weight_decay) == (1e-4, 5e-2)
    assert made.fusion == {"name": "late", "dropout": 0.1}
    assert made.text_encoder.options == {"layer_norm_eps": 1e-6, "a": "${x}"}
    assert (made.data.manifest, made.data.root) == ("${data_root}/m.yaml", "${data_root}")
    assert made.output_dir == "${data_root}/runs"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"name: a\nname: b\n", r"line 2: not valid YAML: found duplicate key name"),
        (b"a: [1\n", r"line 2: not valid YAML"),
        (b"- a\n", "a mapping"),
        (b"\xff\xfe\x00", "not valid YAML"),
        (b'a: !!int "$HOME"\n', r"not valid YAML: .*'\$HOME'$"),
        (b"", "data.manifest is missing"),
    ],
)
def test_a_file_that_is_no_config_says_where(tmp_path, content, message):
    path = tmp_path / "c.yaml"
    path.write_bytes(content)
    with pytest.raises(MmfuseError, match=f"^{path}: .*{message}") as error:
        load_config(path)
    assert "\n" not in str(error.value)


def test_a_missing_file_tells_the_nearest(tmp_path):
    (tmp_path / "phantom.yaml").write_text("name: x\n")
    with pytest.raises(MmfuseError, match=r"fantom.yaml: no such file; .*did you mean 'phantom.yaml'"):
        load_config(tmp_path / "fantom.yaml")
    with pytest.raises(MmfuseError, match=r"x.yaml: no such file$"):
        load_config(tmp_path / "nothing" / "x.yaml")


# The leading letter: PyYAML writes 0E0 without quotes, and it is then read as a number.
YAML_TEXT = st.text(st.characters(codec="utf-8", exclude_categories=("Cc", "Cs")), max_size=20).map("r{}".format)


@pytest.mark.heavy
@settings(max_examples=15, deadline=None)
@given(
    name=YAML_TEXT,
    root=st.none() | YAML_TEXT,
    rate=st.floats(0, 1e6),
    size=st.none() | st.tuples(st.integers(8, 999), st.integers(8, 999)),
    options=st.dictionaries(st.sampled_from(["dropout", "out_dim"]), st.integers() | st.floats(0, 1) | YAML_TEXT),
)
def test_a_config_survives_its_own_yaml(tmp_path_factory, name, root, rate, size, options):
    first = config(
        {
            "name": name,
            "data": {"manifest": "m", "root": root},
            "training": {"learning_rate": rate},
            "image_encoder": {"size": list(size) if size else None},
            "fusion": {"name": "gated", **options},
        }
    )
    path = tmp_path_factory.mktemp("config") / "c.yaml"
    path.write_text(yaml.safe_dump(config_to_dict(first)), encoding="utf-8")
    assert load_config(path) == first


def test_the_printed_schema_is_a_config_once_the_blanks_are_filled(tmp_path):
    path = tmp_path / "c.yaml"
    path.write_text(schema())
    assert load_config(path, ["name=run", "data.manifest=m.yaml"]) == config()


def test_every_key_of_the_schema_has_a_line_of_help():
    lines = [line for line in schema().splitlines() if line.strip()]
    assert [line for line in lines if not line.partition("#")[2].strip()] == []


def test_plain_yaml_keeps_unquoted_words_apart_from_values(tmp_path):
    path = tmp_path / "m.yaml"
    path.write_text("a: yes\nb: 'yes'\nc: 1e5\nd: 007x\n")
    assert read_yaml(path) == {"a": True, "b": "yes", "c": 1e5, "d": "007x"}


# What is the environment's stays there: no text is looked into

SECRETS = [
    r"\${oc.env:SECRET_TOKEN}",
    r"\\${oc.env:SECRET_TOKEN}",
    r"\\\${oc.env:SECRET_TOKEN}",
    "$${oc.env:SECRET_TOKEN}",
    "${oc.env:SECRET_TOKEN}",
    "${oc.decode:${oc.env:SECRET_TOKEN}}",
    "a ${b:${c}} d",
    "${seed}",
    "${",
    "it costs ${5",
    "}$ {x",
    "\ue0001 is what stands for it inside, \ue000 too",
]


@pytest.mark.heavy
@pytest.mark.parametrize("text", SECRETS)
def test_no_text_is_an_interpolation(tmp_path, monkeypatch, text):
    monkeypatch.setenv("SECRET_TOKEN", "hunter2")
    values = {
        **MINIMAL,
        "name": text,
        "plugins": [text],
        "fusion": {"name": "late", text: [text]},
        "tasks": {text.replace(".", ""): {"generation": {"prefix": text}}},
        "text_encoder": {"pretrained": False, "options": {"a": text, text: 1}},
    }
    path = tmp_path / "c.yaml"
    path.write_text(yaml.safe_dump(values, allow_unicode=True), encoding="utf-8")
    escaped = json.dumps(text).replace("$", "\\u0024")
    for made in (
        config_from_dict(values),
        load_config(path),
        config(values | {"name": "other"}, f"name={json.dumps(text)}", f"data.root={json.dumps(text)}"),
        config(values | {"name": "other"}, f"name={escaped}") if text.count("{") == text.count("}") else config(values),
    ):
        assert made.name == text
        assert made.plugins == [text]
        assert made.fusion == values["fusion"]
        assert made.text_encoder.options == values["text_encoder"]["options"]
        (task,) = made.tasks.values()
        assert task.generation.prefix == text
        assert "hunter2" not in str(config_to_dict(made))
        again = tmp_path / "again.yaml"
        again.write_text(yaml.safe_dump(config_to_dict(made)))
        assert load_config(again) == made
    assert made.name == text


@pytest.mark.parametrize("text", SECRETS)
def test_no_text_of_a_benchmark_is_one_either(monkeypatch, text):
    monkeypatch.setenv("SECRET_TOKEN", "hunter2")
    values = {**MINIMAL, "name": text, "strategies": {"a": {"name": "late", "b": text}}}
    assert load_benchmark_config(values).strategies == values["strategies"]
    assert load_benchmark_config(MINIMAL, [f"name={json.dumps(text)}"]).name == text
    with pytest.raises(MmfuseError, match=r"^command line: .*(seeds|while)") as error:
        load_benchmark_config(MINIMAL, [f"seeds={text}"])
    assert "hunter2" not in str(error.value)
    assert "\n" not in str(error.value)


# Keys that nothing reads

SAVED = "mmfuse-model:somewhere"
IDLE = [
    ({"image_encoder": {"name": SAVED, "size": [64, 64]}}, r"image_encoder.size has no effect with .*: remove it"),
    ({"image_encoder": {"name": SAVED, "resize": "squash"}}, r"image_encoder.resize has no effect"),
    ({"image_encoder": {"name": SAVED, "pooling": "cls"}}, r"image_encoder.pooling has no effect"),
    ({"image_encoder": {"name": SAVED, "batch_norm": "train"}}, r"image_encoder.batch_norm has no effect"),
    ({"text_encoder": {"name": SAVED, "max_length": 64}}, r"text_encoder.max_length has no effect"),
    (
        {"text_encoder": {"name": SAVED, "pooling": "cls", "truncation": "tail"}},
        r"text_encoder.pooling, text_encoder.truncation have no effect with .*: remove them",
    ),
    ({"text_encoder": {"options": {"hidden_size": 8}}}, r"text_encoder.options has no effect with .*pretrained: true"),
    ({"text_encoder": {"vocab_size": 900}}, r"text_encoder.vocab_size has no effect"),
    ({"text_encoder": {"unfreeze_epoch": 2}}, r"text_encoder.unfreeze_epoch has no effect with .*frozen: false"),
    (
        {"tasks": {"r": {"decoder": {"pretrained": True, "num_layers": 2}}}},
        r"tasks.r.decoder.num_layers has no effect",
    ),
    (
        {"tasks": {"r": {"decoder": {"tokenizer": "encoder", "vocab_size": 900}}}},
        r"tasks.r.decoder.vocab_size has no effect",
    ),
    ({"tasks": {"r": {"generation": {"temperature": 0.5}}}}, r"tasks.r.generation.temperature has no effect"),
]


@pytest.mark.parametrize(("values", "message"), IDLE)
def test_a_key_without_effect_is_refused(values, message):
    assert re.search(f"^config: {message}", complaint(values))
    with pytest.raises(MmfuseError, match=message):
        load_benchmark_config({**MINIMAL, **values})


def test_a_key_without_effect_on_the_command_line_and_a_whole_config_that_says_nothing():
    assert complaint(None, f"text_encoder.name={SAVED}", "text_encoder.max_length=9").startswith("command line: text_")
    made = config({"text_encoder": {"name": SAVED, "frozen": True, "unfreeze_epoch": 1, "learning_rate": 0.1}})
    assert config_from_dict(config_to_dict(made)) == made  # a run's config.yaml has every key
    with pytest.raises(MmfuseError, match=r"text_encoder.max_length has no effect"):
        config_from_dict(config_to_dict(made), ["text_encoder.max_length=9"])
    whole = config_to_dict(made)
    whole["text_encoder"]["max_length"] = 9
    with pytest.raises(MmfuseError, match=r"text_encoder.max_length has no effect"):
        config_from_dict(whole)


def test_a_file_that_may_not_be_read_is_not_called_missing(tmp_path, monkeypatch):
    def refuse(*_, **__):
        raise PermissionError(13, "Permission denied")

    (tmp_path / "c.yaml").write_text("name: x\n")
    for owner, name in ((Path, "open"), (os, "stat")):
        with monkeypatch.context() as patched:
            patched.setattr(os.path, "isfile", lambda _, found=name == "open": found)
            patched.setattr(owner, name, refuse)
            with pytest.raises(MmfuseError) as error:
                load_config(tmp_path / "c.yaml")
        assert str(error.value) == f"{tmp_path}/c.yaml: cannot be read (permission denied)"
