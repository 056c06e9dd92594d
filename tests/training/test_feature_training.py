"""Features of a table in place of texts or images: trained on, kept with the model, predicted from; or refused."""

import csv
import json
import re

import numpy as np
import pytest
import torch
import yaml
from plugin_runs import Command, assert_works, plugin_of, run_commands, tiny_run
from safetensors.numpy import save_file

from mmfuse.config import ImageEncoderConfig, config_from_dict
from mmfuse.data.audit.run import audit
from mmfuse.data.load import load_table
from mmfuse.data.readers.images import ImageOptions, read_image
from mmfuse.data.shards.write import write_shards
from mmfuse.data.tables.features import FeaturesSpec
from mmfuse.data.tables.manifest import load_manifest
from mmfuse.evaluation.evaluate import evaluate
from mmfuse.model import FusionModel
from mmfuse.predict import Predictor
from mmfuse.predict.studies import open_studies
from mmfuse.predict.tables import TableOptions
from mmfuse.training.run import train
from mmfuse.types import Failure, MmfuseError

BERT = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
WIDTH, ROWS = 6, 80
SIDES = np.array([1.5, -1.5] * 3)
"""By label the vector moves to the one or the other side of 0, and its mean stays: a fusion's LayerNorm keeps it."""


def vectors(seed=0):
    """By row a label and a vector that tells it almost always."""
    draws = np.random.default_rng(seed)
    labels = draws.integers(0, 2, ROWS)
    return labels, (draws.normal(size=(ROWS, WIDTH)) + np.outer(2 * labels - 1, SIDES)).astype(np.float32)


@pytest.fixture
def toy(tmp_path):
    """A manifest whose image is a column of lists; a seventh of the rows has none, a third has no text."""
    labels, found = vectors()
    with (tmp_path / "rows.jsonl").open("w") as rows:
        for i, (label, vector) in enumerate(zip(labels.tolist(), found.tolist(), strict=True)):
            row = {"id": f"r{i}", "note": "" if i % 3 == 1 else f"a note {i}", "label": ["no", "yes"][label]}
            rows.write(json.dumps({**row, "embedding": None if i % 7 == 2 and i % 3 != 1 else vector}) + "\n")
    return write_manifest(tmp_path, {"text": {"columns": ["note"]}, "image": {"features": {"column": "embedding"}}})


def write_manifest(folder, inputs, rows="rows.jsonl"):
    values = {"name": "toy", "rows": rows, "id": "id", "group": "id", "tasks": {"label": {"column": "label"}}}
    path = folder / "manifest.yaml"
    path.write_text(yaml.safe_dump({**values, "splits": {"exact": True}, **inputs}))
    return path


def config(manifest, *overrides, **changes):
    values = {
        "name": "toy",
        "output_dir": str(manifest.parent / "run"),
        "data": {"manifest": str(manifest), "num_workers": 0},
        "text_encoder": {"name": "bert", "pretrained": False, "options": BERT, "max_length": 12, "vocab_size": 100},
        "fusion": {"name": "concat", "out_dim": 16, "dropout": 0.0},
        "training": {"epochs": 6, "batch_size": 8, "learning_rate": 0.01, "trackers": [], "patience": None},
    }
    return config_from_dict(values | changes, overrides)


def test_a_column_is_trained_on_and_predicted_from(toy, tmp_path):
    run = train(config(toy))
    assert run.report["tasks"]["label"]["metrics"]["accuracy"]["value"] > 0.8
    said = json.loads((run.model_dir / "config.json").read_text())
    assert said["image_encoder"] == {"tower": "features", "width": WIDTH, "options": {}}
    assert said["inputs"]["image"]["features"]["column"] == "embedding"
    assert said["accepts_missing"] == ["text", "image"]
    assert "image: features of 6 numbers in its place, read by `features`" in (run.model_dir / "README.md").read_text()
    scores = evaluate(run.model_dir, str(toy))
    assert scores["tasks"]["label"]["metrics"] == run.report["tasks"]["label"]["metrics"]

    model = FusionModel.from_pretrained(run.model_dir)
    studies = open_studies(str(tmp_path / "rows.jsonl"), model=model)
    samples = {sample.id: sample for sample in studies.read(0, len(studies))}
    assert samples["r2"].images == ()
    predictions = {found.id: found for found in Predictor(model)(samples.values())}
    labels, found = vectors()
    assert (
        np.mean([predictions[f"r{i}"].tasks["label"]["label"] == ["no", "yes"][y] for i, y in enumerate(labels)]) > 0.8
    )
    assert predictions["r2"].present == ("text",)
    # an array in memory is read as the table is
    (alone,) = Predictor(model)([{"id": "r1", "image": found[1]}])
    assert alone.tasks == predictions["r1"].tasks
    assert alone.present == ("image",)


def test_what_is_no_feature_is_an_error_of_its_row(toy, tmp_path):
    model = FusionModel.from_pretrained(train(config(toy, "training.epochs=1")).model_dir)
    good = np.zeros(WIDTH, np.float32)
    wrong = {
        "wide": (np.zeros(7), r"image.features: 7 numbers in a vector; 6 are expected"),
        "nan": (np.array([np.nan] * 6), r"image.features: NaN or an infinite number among them; finite ones"),
        "cube": (np.zeros((2, 3, 6)), r"an array of shape \[2, 3, 6\]; \[6\] or \[tokens, 6\] is expected"),
        "complex": (np.zeros(6, complex), r"an array of complex128; numbers are expected"),
        "picture": (b"\x89PNG", r"image.features: no file of arrays \(.npz, .npy, .safetensors\)"),
        "two": ([good, good], r"image.features: 2 of them; one is expected"),
        "absent": (str(tmp_path / "none.npy"), r"image.features none.npy: no such file"),
    }
    found = list(Predictor(model)([{"id": name, "image": image} for name, (image, _) in wrong.items()]))
    for result, (_, said) in zip(found, wrong.values(), strict=True):
        assert isinstance(result, Failure)
        assert re.search(said, result.reason), result.reason
    rows = tmp_path / "new.csv"
    rows.write_text('id,note,embedding\na,,"[1,2,3,4,5,6]"\nb,,"[1,2,3]"\nc,,"[1,2,3,4,5,NaN]"\nd,,words\ne,text,\n')
    studies = open_studies(str(rows), model=model)
    results = {result.id: result for result in Predictor(model)(studies.read(0, 5))}
    assert results["a"].present == ("image",)
    assert results["b"].reason == "image.features: 3 numbers in a vector; 6 are expected"
    assert "row" not in results["c"].reason.split(":")[0]
    assert "NaN or an infinite number" in results["c"].reason
    assert (
        "a text, where a list of numbers is expected, such as [0.5, 1.25], or the path of a file" in results["d"].reason
    )
    assert results["e"].present == ("text",)
    with pytest.raises(
        MmfuseError, match="the model reads features in place of the image, which a folder of files does"
    ):
        open_studies(str(tmp_path), model=model)


@pytest.mark.parametrize(
    ("cell", "said"),
    [
        ("[1,2,3]", r"row 'r9': image\.features: 3 numbers in a vector; 6 are expected"),
        ("[1,2,3,4,5,1e999]", r"image\.features: embedding, row 10: NaN or an infinite number"),
        ('[1,2,3,4,5,"six"]', r"image\.features: embedding, row 10: a list of something else than numbers"),
        ("scan.png", r"image\.features: embedding, row 10: a text, where a list of numbers is expected"),
        ("none.npy", r"row 'r9': no image file .*none\.npy"),
    ],
)
def test_training_names_the_row(toy, tmp_path, cell, said):
    lines = [json.loads(line) for line in (tmp_path / "rows.jsonl").read_text().splitlines()]
    lines[9]["embedding"] = cell
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    with pytest.raises(MmfuseError, match=said):
        train(config(toy))


@pytest.fixture
def files(tmp_path):
    """Both slots are features: of a file by id in place of texts, of a file a row in place of images."""
    labels, found = vectors()
    draws = np.random.default_rng(1)
    keyed = {f"r{i}": draws.normal(size=(1 + i % 3, 4)).astype(np.float32) for i in range(ROWS) if i % 4}
    save_file(keyed, tmp_path / "notes.safetensors")
    (tmp_path / "scans").mkdir()
    with (tmp_path / "rows.csv").open("w", newline="") as handle:
        rows = csv.writer(handle)
        rows.writerow(["id", "scan", "label"])
        for i, label in enumerate(labels):
            np.savez(tmp_path / "scans" / f"{i}.npz", vector=found[i], other=np.zeros(2))
            rows.writerow([f"r{i}", f"{i}.npz", ["no", "yes"][label]])
    image = {"root": "scans", "features": {"column": "scan", "array": "vector", "dim": WIDTH}}
    inputs = {"text": {"features": {"file": "notes.safetensors"}}, "image": image}
    return write_manifest(tmp_path, inputs, "rows.csv")


def test_files_of_both_slots(files, tmp_path):
    changes = {
        "text_encoder": {"tower": "features", "options": {"pooling": "first"}},
        "fusion": {"name": "merged_attention", "out_dim": 16},
    }
    run = train(config(files, **changes))
    assert run.report["missing"]["text"] > 0
    model = FusionModel.from_pretrained(run.model_dir)
    assert model.config()["text_encoder"] == {"tower": "features", "width": 4, "options": {"pooling": "first"}}
    recipe = model.inputs.recipe
    assert recipe.text.features.file == "notes.safetensors"
    assert recipe.image.root == "scans"
    ways = [
        open_studies(str(tmp_path / "rows.csv"), model=model),
        open_studies(str(files), model=model),
        open_studies(str(tmp_path / "rows.csv"), model=model, options=TableOptions(image_root=str(tmp_path / "scans"))),
    ]
    one, two, three = ([found.tasks for found in Predictor(model)(way.read(0, len(way)))] for way in ways)
    assert one == two == three
    assert ways[0].reading.about.endswith("as in training")


def test_columns_say_how_wide_they_are():
    widths = [
        FeaturesSpec(columns=["a", "b"]).width,
        FeaturesSpec(column="e").width,
        FeaturesSpec(column="e", dim=4).width,
    ]
    assert widths == [2, None, 4]


def test_shards_hold_features_and_are_streamed(files, tmp_path):
    write_shards(load_table(load_manifest(files)), str(tmp_path / "shards"), size=10**6)
    sharded = tmp_path / "shards" / "manifest.yaml"
    streamed = config(
        sharded, "data.lanes=2", "training.epochs=1", "text_encoder.name=bert-base-uncased", text_encoder={}
    )
    with pytest.raises(
        MmfuseError, match=r"features in shards the manifest must say how wide they are \(features\.dim\)"
    ):
        train(streamed)
    values = yaml.safe_load(sharded.read_text())
    values["text"]["features"]["dim"] = 4
    sharded.write_text(yaml.safe_dump(values))
    run = train(streamed)
    model = FusionModel.from_pretrained(run.model_dir)
    loose = open_studies(str(files), model=model)
    shards = open_studies(str(tmp_path / "shards"), model=model)
    one, two = ({f.id: f.tasks for f in Predictor(model)(way.read(0, len(way)))} for way in (loose, shards))
    assert one == two
    assert len(one) == ROWS


def test_a_frozen_text_tower_is_cached_beside_features(toy, tmp_path):
    live = train(config(toy, "training.epochs=2", "text_encoder.frozen=true", "cache.enabled=false"))
    cached = train(config(toy, "training.epochs=2", "text_encoder.frozen=true", f"output_dir={tmp_path / 'cached'}"))
    lines = [(run.dir / "metrics.jsonl").read_text().splitlines() for run in (live, cached)]
    losses = [[json.loads(line)["loss"] for line in found if '"loss"' in line] for found in lines]
    assert np.allclose(*losses, rtol=1e-5)


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("image_encoder.tower=timm", "the manifest gives features in place of images, which 'timm' does not read"),
        (
            "text_encoder.tower=timm",
            "the manifest gives texts, which 'timm' does not read; legal: transformers",
        ),
        ("image_encoder.tower=feature", "unknown tower 'feature'.*did you mean 'features'"),
        (
            "image_encoder.pooling=cls",
            r"image_encoder\.pooling has no effect: the manifest gives features in its place",
        ),
        ("image_encoder.options={poling: first}", r"image_encoder\.options: tower\.poling is not an option of tower"),
        ("image_encoder.options={pooling: last}", "pooling: 'last' is not legal; legal: mean, first"),
        ("training.augmentation.image=natural", r"training\.augmentation\.image: features stand in for the images"),
        ("training.augmentation.flip=swap", r"training\.augmentation\.flip: features stand in for the images"),
    ],
)
def test_what_is_refused(toy, override, said):
    with pytest.raises(MmfuseError, match=said):
        train(config(toy, override))


def test_a_key_that_another_tower_does_not_read_is_refused(toy):
    with pytest.raises(MmfuseError, match=r"image_encoder\.size has no effect with image_encoder\.tower: features"):
        config(toy, "image_encoder.tower=features", "image_encoder.size=[32, 32]")


@pytest.mark.parametrize(
    ("image", "said"),
    [
        ({"features": {}}, r"image\.features: give one of column, columns and file"),
        ({"features": {"column": "a", "file": "b.npz"}}, r"image\.features: give one of column, columns and file"),
        ({"column": "film", "features": {"column": "a"}}, "image: features are in place of it"),
        ({"features": {"columns": ["a", "b"], "dim": 3}}, r"image\.features\.dim: 2 columns make as many numbers"),
        ({"features": {"columns": ["a"], "array": "x"}}, r"image\.features\.array goes with the paths of files"),
        ({"features": {"columns": ["age", "label"]}}, "'label' is the target and in image.features too"),
        ({"features": {"colunm": "a"}}, r"image\.features\.colunm: no such key.*did you mean 'column'"),
    ],
)
def test_a_manifest_that_is_not_legal(tmp_path, image, said):
    with pytest.raises(MmfuseError, match=said):
        load_manifest(write_manifest(tmp_path, {"image": image}))


def test_another_manifest_of_images_is_refused(toy, phantom):
    model = train(config(toy, "training.epochs=1")).model_dir
    with pytest.raises(MmfuseError, match="the manifest gives images, and the model reads features"):
        open_studies(str(phantom), model=FusionModel.from_pretrained(model))


def test_data_check_looks_at_features(files, tmp_path):
    report = audit(load_manifest(files))
    assert {"text: features of 4 numbers", "image: features of 6 numbers"} <= set(report.facts)
    assert not [found for found in report.findings if found.check.startswith(("texts.", "images.", "features."))]
    np.savez(tmp_path / "scans" / "3.npz", vector=np.zeros(5))
    (tmp_path / "scans" / "4.npz").write_bytes(b"nothing")
    (found,) = [found for found in audit(load_manifest(files)).findings if found.check == "features.unreadable"]
    assert found.message.startswith(
        "image.features: 2 row(s) cannot be read, such as 'r3': 5 numbers in a vector; 6 are"
    )


@pytest.mark.heavy
def test_the_tower_of_the_page(tmp_path):
    plugin = plugin_of("A tower", tmp_path)
    values = tiny_run(tmp_path, plugin)
    folder = tmp_path / "phantom"
    rows = list(csv.DictReader((folder / "data.csv").read_text().splitlines()))
    for i, row in enumerate(rows):
        row["age"] = "" if i % 9 == 4 else 20 + 37 * i % 61
    with (folder / "data.csv").open("w", newline="") as handle:
        writer = csv.DictWriter(handle, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    described = yaml.safe_load((folder / "manifest.yaml").read_text())
    described["image"] = {"features": {"columns": ["age"]}}
    (folder / "manifest.yaml").write_text(yaml.safe_dump(described))
    values["image_encoder"] = {"tower": "standardized", "options": {"out_dim": 8}}
    values["training"]["modality_dropout"] = {"text": 0.2, "image": 0.2}
    assert_works(values, "standardized", "towers")
    model = tmp_path / "run" / "model"
    said = json.loads((model / "config.json").read_text())
    assert said["image_encoder"] == {"tower": "standardized", "width": 1, "options": {"out_dim": 8}}
    assert said["plugins"] == {"tower standardized": "a_tower_plugin"}
    with pytest.raises(MmfuseError, match=r"needs the 'tower standardized' from the plug-in 'a_tower_plugin'"):
        FusionModel.from_pretrained(model)
    benchmark = {key: values[key] for key in ("plugins", "data", "text_encoder", "image_encoder")}
    benchmark |= {"name": "tower", "output_dir": str(tmp_path / "bench"), "seeds": 1, "resamples": 100, "emap_rows": 8}
    benchmark["training"] = {"epochs": 1, "batch_size": 8}
    benchmark["strategies"] = {name: {"name": name} for name in ("concat", "image_only", "cross_attention")}
    (tmp_path / "bench.yaml").write_text(yaml.safe_dump(benchmark))
    out, plug = str(tmp_path / "said.jsonl"), ["--plugin", str(plugin)]
    commands = [
        Command(["evaluate", str(model), str(folder / "manifest.yaml"), "--out", str(tmp_path / "scores"), *plug]),
        Command(["predict", str(model), str(folder / "data.csv"), "--out", out, *plug]),
        Command(["benchmark", str(tmp_path / "bench.yaml")]),
    ]
    run_commands(commands, tmp_path)
    predicted = [json.loads(line) for line in (tmp_path / "said.jsonl").read_text().splitlines()]
    assert len(predicted) == len(rows)
    assert sum("image" not in found["present"] for found in predicted) == sum(not row["age"] for row in rows)
    assert (tmp_path / "bench" / "report.html").is_file()


def test_features_computed_before_train_as_a_cached_tower_does(tiny, phantom, tmp_path):
    """The same losses, to the last bit, from a frozen tower's cached features and from these in a column."""
    images = tiny("image_encoder.frozen=true", "training.epochs=1", run="images")
    cached = train(images)
    tower = FusionModel.from_pretrained(cached.model_dir).image_encoder
    table = load_table(load_manifest(phantom))
    options = ImageOptions((32, 32), interpolation=tower.preprocessing.interpolation)
    rows = list(csv.DictReader((phantom.parent / "data.csv").read_text().splitlines()))
    assert [row["id"] for row in rows] == table.rows["id"][:]
    for row, sources in zip(rows, table.images(), strict=True):
        pixels = [read_image(source, options).transpose(2, 0, 1) for source in sources]
        with torch.no_grad():
            found = [tower(torch.from_numpy(np.ascontiguousarray(image))[None]).pooled[0].tolist() for image in pixels]
        assert len(found) <= 1
        row["vector"] = json.dumps(found[0]) if found else ""
    with (tmp_path / "rows.csv").open("w", newline="") as handle:
        writer = csv.DictWriter(handle, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    described = yaml.safe_load(phantom.read_text())
    described |= {"rows": str(tmp_path / "rows.csv"), "image": {"features": {"column": "vector", "dim": tower.dim}}}
    (tmp_path / "manifest.yaml").write_text(yaml.safe_dump(described))
    given = tiny(f"data.manifest={tmp_path / 'manifest.yaml'}", "training.epochs=1", run="features")
    given.image_encoder = ImageEncoderConfig()
    run = train(given)
    lines = [(found.dir / "metrics.jsonl").read_text().splitlines() for found in (cached, run)]
    losses = [[json.loads(line)["loss"] for line in found if '"loss"' in line] for found in lines]
    assert losses[0] == losses[1]
    assert cached.report["tasks"] == run.report["tasks"]
