"""Every recipe of docs/recipes.md trains: its own config, with small encoders in place of the downloaded ones."""

import csv
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from PIL import Image
from transformers import BertConfig, BertModel, BertTokenizer

import mmfuse as library
from mmfuse.config import load_config
from mmfuse.data.synthetic.phantom import write_phantom
from mmfuse.data.synthetic.phantom_findings import write_language
from mmfuse.encoders.text import TextEncoder

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "recipes.md").read_text(encoding="utf-8")
SIZES: dict[str, Any] = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
TEXT = f"text_encoder={{name: bert, pretrained: false, vocab_size: 200, max_length: 16, options: {SIZES}}}"
SHORT = ("data.num_workers=0", "training.batch_size=8", "training.max_steps=2", "training.trackers=[]")
SMALL_IMAGE_OPTIONS = {
    "resnet50": "{layers: [1, 1, 1, 1], channels: [8, 8, 8, 8], stem_width: 8}",
    "vit_small_patch16_224": "{depth: 1, embed_dim: 16, num_heads: 2}",
    "densenet121": "{growth_rate: 4, block_config: [1, 1, 1, 1]}",
}
CHARACTERS = "这个酒店很好不太差房间干净服务慢我们下次再来"


def blocks(language):
    return re.findall(rf"```{language}\n(.*?)```", PAGE, re.DOTALL)


def small_image(config):
    """The recipe's own architecture with random weights, few channels, and images of 32 pixels."""
    architecture = config.image_encoder.name.removeprefix("timm/").split(".")[0]
    return (
        f"image_encoder.name={architecture}",
        "image_encoder.pretrained=false",
        "image_encoder.batch_norm=frozen",  # as auto does with pretrained weights
        "image_encoder.size=[32, 32]",
        f"image_encoder.options={SMALL_IMAGE_OPTIONS[architecture]}",
    )


def train(name, tmp_path, *overrides, image=True):
    path = ROOT / "configs" / f"{name}.yaml"
    config = load_config(path)
    small = small_image(config) if image else ()
    where = (f"output_dir={tmp_path / 'run'}", f"data.manifest={ROOT / config.data.manifest}")
    return library.train(load_config(path, [*where, *small, *SHORT, *overrides]))


@pytest.fixture(scope="session")
def data_root(tmp_path_factory):
    """What the manifests of products and emoji name, with 60 rows each."""
    root = tmp_path_factory.mktemp("recipes")
    pixels = np.random.default_rng(0)
    for dataset in ("flipkart_1050", "emoji_google"):
        (root / dataset).mkdir()
        with (root / dataset / "data.csv").open("w", newline="") as handle:
            writer = csv.writer(handle)
            writer.writerow(["id", "image", "text", "category"])
            for i in range(60):
                writer.writerow([f"r{i}", f"{i}.png", f"item number {i}", ("watch", "cup", "lamp")[i % 3]])
                Image.fromarray(pixels.integers(0, 256, (32, 32, 3), np.uint8)).save(root / dataset / f"{i}.png")
    return root


@pytest.fixture(scope="session")
def phantom(tmp_path_factory):
    folder = tmp_path_factory.mktemp("recipes") / "phantom"
    write_phantom(folder, 60, seed=0)
    write_language(folder, seed=0)
    return folder


def test_the_page_names_every_recipe_and_no_other():
    shipped = {path.name for path in (ROOT / "configs").glob("recipe_*.yaml")}
    assert shipped
    assert set(re.findall(r"recipe_\w+\.yaml", PAGE)) == shipped


def test_concatenation_and_a_linear_layer_over_folds(tmp_path, data_root):
    tested = []
    for fold in (0, 1):
        run = train("recipe_concat_linear", tmp_path / str(fold), TEXT, f"data.root={data_root}", f"data.fold={fold}")
        predictions = (run.dir / "test" / "predictions.jsonl").read_text().splitlines()
        tested.append({line.split(",")[0] for line in predictions})
    assert library.FusionModel.from_pretrained(run.model_dir).fusion.interaction == "additive"
    assert not tested[0] & tested[1]
    assert len(tested[0]) + len(tested[1]) == 24


def test_weighted_concatenation_learns_its_weights(tmp_path, data_root):
    run = train("recipe_weighted_concat", tmp_path, TEXT, f"data.root={data_root}", "data.fold=0")
    weights = library.FusionModel.from_pretrained(run.model_dir).fusion.weights
    assert weights.shape == (2,)
    assert weights.abs().sum() > 0  # they begin at 0


def test_a_vit_captions_and_labels(tmp_path, phantom):
    run = train(
        "recipe_vit_caption",
        tmp_path,
        f"data.manifest={phantom / 'captions.yaml'}",
        "tasks.report.generation.max_length=4",
    )
    assert run.report["tasks"].keys() == {"report", "findings"}


def test_labels_from_film_and_report_with_either_absent(tmp_path, phantom):
    run = train("recipe_film_and_report", tmp_path, TEXT, f"data.manifest={phantom / 'manifest.yaml'}")
    assert len(run.report["tasks"]["findings"]["per_label"]) == 7
    predictor = library.Predictor.from_pretrained(run.model_dir)
    film = str(next((phantom / "images").iterdir()))
    said = list(predictor([{"id": "film", "image": film}, {"id": "report", "text": "No effusion."}]))
    assert [type(one).__name__ for one in said] == ["Prediction", "Prediction"]


def test_chinese_sentiment_from_a_local_folder(tmp_path):
    encoder = tmp_path / "bert-base-chinese"
    encoder.mkdir()
    vocabulary = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *sorted(set(CHARACTERS))]
    (encoder / "vocab.txt").write_text("\n".join(vocabulary), encoding="utf-8")
    BertTokenizer(str(encoder / "vocab.txt"), do_lower_case=False).save_pretrained(encoder)
    BertModel(BertConfig(vocab_size=len(vocabulary), **SIZES)).save_pretrained(encoder)
    with (tmp_path / "reviews.csv").open("w", newline="", encoding="utf-8") as handle:
        writer = csv.writer(handle)
        writer.writerow(["id", "review", "label"])
        draw = np.random.default_rng(0)
        writer.writerows([i, "".join(draw.choice(list(CHARACTERS), 9)), i % 2] for i in range(60))
    (manifest,) = (block for block in blocks("yaml") if "reviews.csv" in block)
    (tmp_path / "reviews.yaml").write_text(manifest)
    config = load_config(ROOT / "configs" / "recipe_chinese_sentiment.yaml")
    assert set(config.data.tasks or []) == set(yaml.safe_load(manifest)["tasks"])
    where = (f"text_encoder.name={encoder}", f"data.manifest={tmp_path / 'reviews.yaml'}")
    run = train("recipe_chinese_sentiment", tmp_path, *where, image=False)
    model = library.FusionModel.from_pretrained(run.model_dir)
    assert model.image_encoder is None
    assert isinstance(model.text_encoder, TextEncoder)
    ids, _ = model.text_encoder.tokenize(["很好"])
    assert len(ids[0]) == 4  # one token for each character, between [CLS] and [SEP]


def test_fine_tuning_stops_early_and_its_predictions_give_a_classification_report(
    tmp_path, data_root, monkeypatch, capsys
):
    where = (f"data.root={data_root}", "data.fold=0", "output_dir=runs/recipe_finetune")
    monkeypatch.chdir(tmp_path)
    # with a rate of next to nothing no evaluation is better than the first one
    still = ("training.max_steps=null", "training.learning_rate=1e-30", "training.batch_size=32", "training.patience=1")
    towers = ("text_encoder.learning_rate=1e-30", "image_encoder.learning_rate=1e-30")
    run = train("recipe_finetune", tmp_path, TEXT, *where, *still, *towers)
    assert run.steps < 10
    assert set(run.report["tasks"]["category"]["per_label"]) == {"watch", "cup", "lamp"}
    (python,) = blocks("python")
    exec(compile(python, "recipes.md", "exec"), {})
    assert re.search(r"precision +recall +f1-score", capsys.readouterr().out)
