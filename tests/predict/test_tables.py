"""Tables as a model reads them: by the recipe of its training, or otherwise, and then it is said."""

import http.server
import io
import json
import pickle
import shutil
import threading

import numpy as np
import pandas as pd
import pytest
import yaml
from PIL import Image

from mmfuse.data.rows.delimited import CsvSpec
from mmfuse.data.tables.inputs import TableInputs
from mmfuse.data.tables.manifest import ImageSpec, TextSpec
from mmfuse.data.tables.recipe import Recipe
from mmfuse.predict import Predictor, TableOptions, TableStudies, open_studies
from mmfuse.types import MmfuseError

RECIPE = Recipe(
    TextSpec(columns=["title", "body"], template="{body} / {title}", missing=["NA"]),
    ImageSpec(column="film", separator="|", root="films"),
)
INPUTS = TableInputs("study", RECIPE)


@pytest.fixture(scope="module")
def trained(model_dir, tmp_path_factory):
    """The tiny model, as if it had been trained on such tables."""
    folder = shutil.copytree(model_dir, tmp_path_factory.mktemp("trained") / "model")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "inputs": INPUTS.to_dict()}))
    return folder


@pytest.fixture(scope="module")
def predictor(trained):
    return Predictor.from_pretrained(trained)


@pytest.fixture
def folder(tmp_path):
    """Films, and a table of the trained columns and of the usual ones."""
    (tmp_path / "films").mkdir()
    rows = []
    for i in range(4):
        pixels = np.random.default_rng(i).integers(0, 256, (32, 32), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / "films" / f"{i}.png")
        rows.append({"study": f"s{i}", "title": f"cough {i}", "body": "fever", "film": f"{i}.png", "note": "pain"})
    rows[1] |= {"title": " NA ", "film": "0.png | 1.png"}
    rows[2] |= {"title": "NA", "body": "NA"}
    pd.DataFrame(rows).to_csv(tmp_path / "rows.csv", index=False)
    return tmp_path


def read(predictor, source, **options):
    studies = open_studies(str(source), options=TableOptions(**options), model=predictor.model)
    return [(s.id, s.text, [str(i).rpartition("/")[2] for i in s.images]) for s in studies.read(0, len(studies))]


def test_a_table_is_read_as_in_training(predictor, folder):
    expected = [
        ("s0", "fever / cough 0", ["0.png"]),
        ("s1", "fever /", ["0.png", "1.png"]),
        ("s2", None, ["2.png"]),
        ("s3", "fever / cough 3", ["3.png"]),
    ]
    assert read(predictor, folder / "rows.csv") == expected
    frame = pd.read_csv(folder / "rows.csv", keep_default_na=False)
    frame["film"] = frame["film"].str.split("|")
    frame.to_parquet(folder / "rows.parquet")
    frame.to_json(folder / "rows.jsonl", orient="records", lines=True)
    assert read(predictor, folder / "rows.parquet") == read(predictor, folder / "rows.jsonl") == expected
    (result,) = list(predictor(open_studies(str(folder / "rows.csv"), model=predictor.model).read(2, 3)))
    assert result.reason.startswith("no text, and the model was trained without")


def test_it_is_said_which_columns_are_read(mmfuse, trained, model_dir, folder):
    out, films = ("--out", folder / "p.jsonl", "--overwrite"), f"images from film, below {folder}/films"
    text = "text from title, body (by a template; missing: NA)"
    for model, options, said in (
        (trained, (), f"read: id from study; {text}; {films}; as in training"),
        (trained, ("--text-column", "note"), f"note (missing: NA); {films}; in training the {text}"),
        (trained, ("--image-root", folder / "films"), f"read: id from study; {text}; {films}; as in training"),
        (model_dir, ("--id-column", "study", "--text-column", "note"), "the model folder does not say which it was"),
    ):
        code, _, err = mmfuse("predict", model, folder / "rows.csv", *out, *options)
        assert code in (0, 3)
        assert said in err


def test_a_column_that_is_not_there_is_refused_whatever_may_be_missing(mmfuse, trained, folder):
    frame = pd.read_csv(folder / "rows.csv", keep_default_na=False)
    for column, what in (("body", "the model's text"), ("film", "the model's image"), ("study", "--id-column")):
        frame.drop(columns=column).to_csv(folder / "less.csv", index=False)
        code, _, err = mmfuse("predict", trained, folder / "less.csv", "--missing=allow", "--out", folder / "p.jsonl")
        assert code == 2
        assert f"less.csv: {what}: the rows have no column {column!r}; legal: " in err
        assert not (folder / "p.jsonl").exists()
    frame.assign(body="", title="").to_csv(folder / "empty.csv", index=False)
    code, out, _ = mmfuse("predict", trained, folder / "empty.csv", "--missing=allow", "--out", folder / "p.jsonl")
    assert (code, out.startswith("4 studies: 4 predictions")) == (0, True)


def test_options_stand_in_for_the_recipe(predictor, folder):
    texts = [text for _, text, _ in read(predictor, folder / "rows.csv", text_column="title")]
    assert texts == ["cough 0", None, None, "cough 3"]
    (folder / "other").mkdir()
    studies = open_studies(
        str(folder / "rows.csv"), options=TableOptions(image_root=str(folder / "other")), model=predictor.model
    )
    assert next(studies.read(0, 1)).images == (f"{folder}/other/0.png",)
    with pytest.raises(MmfuseError, match=r"--text-column: the rows have no column 'ttle'; .*did you mean 'title'"):
        read(predictor, folder / "rows.csv", text_column="ttle")
    with pytest.raises(MmfuseError, match=r"^--image-urls: image.urls: 'ftp'; legal: https"):
        read(predictor, folder / "rows.csv", image_urls=("ftp",))


def test_a_manifest_says_what_its_columns_are(mmfuse, predictor, trained, folder):
    (folder / "rows.csv").rename(folder / "a.csv")
    shutil.copy(folder / "a.csv", folder / "b.csv")
    (folder / "b.csv").write_text((folder / "b.csv").read_text().replace("\ns", "\nt"))
    manifest = {
        "name": "new",
        "rows": "*.csv",
        "id": "study",
        "image": {"column": "film", "root": "films", "separator": "|"},
        "text": {"columns": ["note"]},
    }
    (folder / "m.yaml").write_text(yaml.safe_dump(manifest))
    assert [row[:2] for row in read(predictor, folder / "m.yaml")] == [
        (f"{a}{i}", "pain") for a in "st" for i in range(4)
    ]
    code, out, err = mmfuse("predict", trained, folder / "m.yaml", "--out", folder / "p.jsonl")
    assert (code, out.startswith("8 studies: 8 predictions")) == (0, True)
    assert "text from note; " in err
    assert "; in training the text from title, body (by a template; missing: NA)" in err
    for name in ("text", "image"):
        (folder / "less.yaml").write_text(yaml.safe_dump({k: v for k, v in manifest.items() if k != name}))
        with pytest.raises(MmfuseError, match=f"less.yaml: {name}: the model reads it, and the manifest does not say"):
            read(predictor, folder / "less.yaml")
    code, _, err = mmfuse("predict", trained, folder / "m.yaml", "--text-column", "title", "--out", folder / "q.jsonl")
    assert code == 2
    assert "a manifest says what its columns are" in err


def test_how_csv_was_written_belongs_to_the_recipe(model_dir, folder):
    predictor = Predictor.from_pretrained(model_dir)
    predictor.model.inputs = TableInputs("study", RECIPE, CsvSpec(";", "cp1252"))
    text = (folder / "rows.csv").read_text().replace(",", ";").replace("fever", "Fieber, größer")
    (folder / "rows.csv").write_text(text, encoding="cp1252")
    assert read(predictor, folder / "rows.csv")[0][1] == "Fieber, größer / cough 0"
    told = open_studies(str(folder / "rows.csv"), model=predictor.model).reading.about
    assert '; csv: {"separator": ";", "encoding": "cp1252"}; as in training' in told
    (folder / "rows.csv").write_text(text, encoding="utf-8")
    with pytest.raises(MmfuseError, match="it is UTF-8, not CP1252"):
        read(predictor, folder / "rows.csv")


def test_a_folder_is_told_that_its_reports_are_the_text(mmfuse, trained, model_dir, pairs, folder):
    for model, told in ((trained, True), (model_dir, False)):
        code, _, err = mmfuse("predict", model, pairs, "--out", folder / "p.jsonl", "--overwrite")
        assert code == 0
        assert ("each report is the text as it is; in training it was made of title, body by a template" in err) == told
    for option in ("--text-column", "--image-root", "--image-urls"):
        code, _, err = mmfuse("predict", trained, pairs, "--out", folder / "p.jsonl", "--overwrite", option, "x")
        assert (code, "not a table" in err) == (2, True)
    code, _, err = mmfuse("predict", trained, pairs, "--out", folder / "w.jsonl", "--watch", "--text-column", "x")
    assert (code, "--watch" in err) == (2, True)


def test_images_in_a_table_are_kept_in_the_file_of_the_listing(predictor, folder):
    """Bytes of parquet are what the files are; another picture of the same name is another run."""
    frame = pd.read_csv(folder / "rows.csv", keep_default_na=False)
    files = [[folder / "films" / f.strip() for f in cell.split("|")] for cell in frame["film"]]
    of_files = list(predictor(open_studies(str(folder / "rows.csv"), model=predictor.model).read(0, 2)))
    tables = {
        "struct": [{"bytes": paths[-1].read_bytes(), "path": paths[-1].name} for paths in files],
        "binary": [paths[-1].read_bytes() for paths in files],
        "list": [[{"bytes": path.read_bytes(), "path": None} for path in paths] for paths in files],
    }
    identities = set()
    for name, column in tables.items():
        frame.assign(film=column).to_parquet(folder / f"{name}.parquet")
        studies = open_studies(str(folder / f"{name}.parquet"), model=predictor.model)
        assert isinstance(studies, TableStudies)
        assert studies.holds_images
        first, second = predictor(studies.read(0, 2))
        assert first.tasks == of_files[0].tasks
        assert (second.tasks == of_files[1].tasks) == (name == "list")
        assert list(studies.ids()) == ["s0", "s1", "s2", "s3"]
        assert list(pickle.loads(pickle.dumps(studies)).read(0, 4)) == list(studies.read(0, 4))
        shuffled = frame.assign(film=column).sample(frac=1, random_state=0)
        shuffled.to_parquet(folder / "shuffled.parquet")
        assert open_studies(str(folder / "shuffled.parquet"), model=predictor.model).identity == studies.identity
        identities.add(studies.identity)
    column = [b"another", *tables["binary"][1:]]
    frame.assign(film=column).to_parquet(folder / "other.parquet")
    identities.add(open_studies(str(folder / "other.parquet"), model=predictor.model).identity)
    assert len(identities) == 3  # a struct's bytes are the binary column's


def test_what_is_read_belongs_to_the_identity(predictor, folder):
    options = [{}, {"text_column": "note"}, {"image_root": str(folder)}, {"image_urls": ("https",)}]
    studies = [
        open_studies(str(folder / "rows.csv"), options=TableOptions(**o), model=predictor.model) for o in options
    ]
    assert len({each.identity for each in studies}) == 4


class Server(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.server.asked.append(self.path)  # type: ignore[attr-defined]
        self.send_response(200)
        self.end_headers()
        self.wfile.write(self.server.picture)  # type: ignore[attr-defined]

    do_HEAD = do_GET  # noqa: N815

    def log_message(self, *_):
        pass


@pytest.fixture
def server():
    data = io.BytesIO()
    Image.fromarray(np.zeros((32, 32), np.uint8)).save(data, "PNG")
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Server) as serving:
        serving.asked, serving.picture = [], data.getvalue()  # type: ignore[attr-defined]
        thread = threading.Thread(target=serving.serve_forever, daemon=True)
        thread.start()
        yield serving
        serving.shutdown()


def test_a_url_in_a_cell_is_read_only_if_who_predicts_permits_it(predictor, folder, server):
    """What the training's manifest permitted is not asked: the model folder may be anyone's, and the table too."""
    url = f"http://127.0.0.1:{server.server_port}"
    cells = [f"{url}/a.png", f"simplecache::{url}/a.png", "reference://x::file:///evil.json", f"file://{folder}/x"]
    rows = [{"study": f"s{i}", "title": "a", "body": "b", "film": cell} for i, cell in enumerate(cells)]
    pd.DataFrame(rows).to_csv(folder / "urls.csv", index=False)

    def predict(**options):
        studies = open_studies(str(folder / "urls.csv"), options=TableOptions(**options), model=predictor.model)
        return [getattr(result, "reason", None) for result in predictor(studies.read(0, len(studies)))]

    assert all(predict())
    assert all(predict(image_urls=("https", "http")))  # an address of this machine must be named
    assert server.asked == []
    assert [reason is None for reason in predict(image_urls=(url,))] == [True, False, False, False]
    assert set(server.asked) == {"/a.png"}
    (own,) = predictor([{"image": f"{url}/own.png", "text": "typed by the user"}])
    assert own.present == ("text", "image")
    assert server.asked[-1] == "/own.png"
    (chained,) = predictor([{"image": f"simplecache::{url}/chained.png", "text": "x"}])
    assert "::" in chained.reason
    assert server.asked[-1] == "/own.png"


def test_a_cell_of_another_kind_costs_its_row_alone(predictor, folder):
    rows = pd.read_csv(folder / "rows.csv", keep_default_na=False).to_dict("records")

    def samples(name):
        studies = open_studies(str(folder / name), model=predictor.model)
        return {sample.id: sample for sample in studies.read(0, len(studies))}

    alone = samples("rows.csv")
    rows[0]["body"], rows[3]["film"] = ["fever"], "data:image/png;base64," + "A" * 300
    (folder / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)))
    found = samples("rows.jsonl")
    assert found["s0"].problem.startswith("text.columns: column 'body': a list of 1, where a text is expected")
    assert found["s3"].problem.startswith("image.column: film: an image written in a text (base64)")
    assert (found["s1"], found["s2"]) == (alone["s1"], alone["s2"])
    (folder / "rows.jsonl").write_text(json.dumps(rows[0]))
    with pytest.raises(MmfuseError, match=r"rows.jsonl: text.columns: column 'body', row 1: a list of 1"):
        samples("rows.jsonl")


def test_a_hostile_model_folder_chooses_no_files(trained, tmp_path):
    folder = shutil.copytree(trained, tmp_path / "model")
    config = json.loads((folder / "config.json").read_text())
    for edit, reason in (
        ({"root": "/etc"}, "inputs.image.root"),
        ({"root": "films/../.."}, "inputs.image.root"),
        ({"urls": ["https"]}, "inputs.image.urls: a model folder permits none"),
        ({"urls": ["file"]}, "inputs.image.urls"),
    ):
        inputs = {**config["inputs"], "image": {**config["inputs"]["image"], **edit}}
        (folder / "config.json").write_text(json.dumps({**config, "inputs": inputs}))
        with pytest.raises(MmfuseError, match=rf"config.json: {reason}"):
            Predictor.from_pretrained(folder)


def test_a_model_keeps_its_recipe_when_it_is_saved_again(predictor, model_dir, tmp_path):
    predictor.model.save_pretrained(tmp_path / "again")
    assert Predictor.from_pretrained(tmp_path / "again").model.inputs == INPUTS
    assert "inputs" not in Predictor.from_pretrained(model_dir).model.config()  # so that its fingerprint stays


def test_ray_is_not_given_images(mmfuse, trained, folder):
    frame = pd.read_csv(folder / "rows.csv", keep_default_na=False)
    frame.assign(film=[(folder / "films" / "0.png").read_bytes()] * 4).to_parquet(folder / "rows.parquet")
    pytest.importorskip("ray")
    options = ("--engine", "ray", "--out", folder / "p.jsonl")
    code, _, err = mmfuse("predict", trained, folder / "rows.parquet", *options)
    assert code == 2
    assert "contains images: convert it to shards (mmfuse data shard)" in err


def test_rows_are_numbered_where_the_recipe_says_so_and_no_column_is_called_row(model_dir, folder):
    inputs = TableInputs("row", Recipe(TextSpec(columns=["title"]), ImageSpec(column="film", root="films")))
    config = json.loads((model_dir / "config.json").read_text())
    model = shutil.copytree(model_dir, folder / "model")
    (model / "config.json").write_text(json.dumps({**config, "inputs": inputs.to_dict()}))
    numbered = Predictor.from_pretrained(model)
    frame = pd.read_csv(folder / "rows.csv", keep_default_na=False).assign(film="0.png")
    frame.to_csv(folder / "rows.csv", index=False)
    assert [name for name, *_ in read(numbered, folder / "rows.csv")] == ["1", "2", "3", "4"]
    frame.assign(row=list("abcd")).to_csv(folder / "named.csv", index=False)
    assert [name for name, *_ in read(numbered, folder / "named.csv")] == ["a", "b", "c", "d"]
