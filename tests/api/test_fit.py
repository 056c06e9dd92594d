"""`mmfuse.fit`: what it writes, goes on with, and refuses."""

import hashlib
from pathlib import Path

import pandas as pd
import pytest
import yaml
from api_runs import COLUMNS, SMALL

import mmfuse
from mmfuse.training.loop import Trainer


def weights(run: Path) -> str:
    return hashlib.sha256((run / "model" / "model.safetensors").read_bytes()).hexdigest()


def test_the_command_line_does_the_same_again_of_what_is_written(model, tmp_path, mmfuse):
    code, _, said = mmfuse("train", model.run / "config.yaml", f"output_dir={tmp_path / 'again'}")
    assert code == 0, said
    assert weights(tmp_path / "again") == weights(model.run)


def test_the_same_call_gives_a_finished_run(model, frame):
    before = weights(model.run)
    again = mmfuse.fit(frame, **COLUMNS, **SMALL, out=model.run)
    assert again.run == model.run
    assert weights(model.run) == before


def test_an_interrupted_run_is_gone_on_with(model, frame, tmp_path, monkeypatch):
    step = Trainer.step

    def stopping(self, batches):
        if self.state.step == 2:
            raise KeyboardInterrupt
        return step(self, batches)

    every = {**SMALL, "training": {**SMALL["training"], "checkpoint_every": 1}}
    with monkeypatch.context() as patched:
        patched.setattr(Trainer, "step", stopping)
        with pytest.raises(KeyboardInterrupt, match="the checkpoint of step 2 is kept"):
            mmfuse.fit(frame, **COLUMNS, **every, out=tmp_path / "run")
    with pytest.raises(mmfuse.MmfuseError, match="run: a run that is not finished; the same call of fit resumes it"):
        mmfuse.Model.load(tmp_path / "run")
    assert weights(mmfuse.fit(frame, **COLUMNS, **every, out=tmp_path / "run").run) == weights(model.run)


def test_other_rows_in_the_same_folder_are_refused_until_it_is_discarded(frame, tmp_path):
    def fit(rows: pd.DataFrame, **more) -> mmfuse.Model:
        return mmfuse.fit(rows, **COLUMNS, **SMALL, out=tmp_path / "run", **more)

    fit(frame)
    changed = frame.assign(text=["other words", *frame["text"][1:]])
    for rows in (changed, frame.head(40)):
        with pytest.raises(mmfuse.MmfuseError, match=r"run: holds a run of other rows .*another out=, or restart=True"):
            fit(rows)
    with pytest.raises(mmfuse.MmfuseError, match=r"run: holds a run of other data \(text.columns was \['text'\]"):
        mmfuse.fit(frame, **{**COLUMNS, "text": "id"}, **SMALL, out=tmp_path / "run")
    assert (tmp_path / "run" / "model").is_dir()
    assert len(pd.read_parquet(fit(changed, restart=True).run / "rows.parquet")) == len(frame)
    fit(changed)


def test_what_cannot_be_trained_leaves_the_folder_as_it_was(frame, tmp_path):
    with pytest.raises(mmfuse.MmfuseError, match="no image file"):
        mmfuse.fit(frame.assign(image="/nowhere.png"), **COLUMNS, **SMALL, out=tmp_path / "run")
    assert not (tmp_path / "run").exists()
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "manifest.yaml").write_text("my own\n")
    with pytest.raises(mmfuse.MmfuseError, match="mine: not empty, and not a run"):
        mmfuse.fit(frame, **COLUMNS, **SMALL, out=tmp_path / "mine")
    assert (tmp_path / "mine" / "manifest.yaml").read_text() == "my own\n"


def test_a_restart_that_fails_puts_the_run_back(frame, model):
    before = weights(model.run), (model.run / "rows.parquet").read_bytes()
    with pytest.raises(mmfuse.MmfuseError, match="no image file"):
        mmfuse.fit(frame.assign(image="/nowhere.png"), **COLUMNS, **SMALL, out=model.run, restart=True)
    assert (weights(model.run), (model.run / "rows.parquet").read_bytes()) == before


def test_the_command_line_keeps_the_rows_of_a_run_that_it_restarts_or_cannot_start(frame, tmp_path, mmfuse):
    import mmfuse as library

    run = library.fit(frame, **COLUMNS, **SMALL, out=tmp_path / "run").run
    rows, first = (run / "rows.parquet").read_bytes(), weights(run)
    assert mmfuse("train", run / "config.yaml", "--restart")[0] == 0
    assert weights(run) == first
    assert mmfuse("train", run / "config.yaml", "training.monitor=nope/nope", "--restart")[0] == 2
    assert (run / "rows.parquet").read_bytes() == rows
    assert weights(run) == first


def test_rows_of_their_own_for_validation_and_test(frame, tmp_path):
    parts = frame[:30], frame[30:45], frame[45:]
    run = mmfuse.fit(parts[0], **COLUMNS, valid=parts[1], test=parts[2], **SMALL, out=tmp_path / "three").run
    splits = pd.read_csv(run / "splits.csv").set_index("id")["split"]
    assert [set(splits[part["id"]]) for part in parts] == [{"train"}, {"validation"}, {"test"}]
    run = mmfuse.fit(frame[:45], **COLUMNS, test=parts[2], **SMALL, out=tmp_path / "two").run
    splits = pd.read_csv(run / "splits.csv").set_index("id")["split"]
    assert set(splits[parts[2]["id"]]) == {"test"}
    assert set(splits[frame["id"][:45]]) == {"train", "validation"}
    with pytest.raises(mmfuse.MmfuseError, match="test: the rows have no column 'sex', which those of data have"):
        mmfuse.fit(parts[0], **COLUMNS, test=parts[2].drop(columns="sex"), **SMALL, out=tmp_path / "none")


@pytest.mark.parametrize(
    ("key", "said"),
    [
        ("traget", "fit: traget: no such argument; legal: data, target, .*did you mean 'target'"),
        ("epochs", "fit: epochs: no such argument; the config has it as training.epochs: give"),
        ("training.epoch", "fit: training.epoch: no such key; legal: .*did you mean 'epochs'"),
        ("data.manifest", "fit: data.manifest: fit writes one"),
    ],
)
def test_an_override_that_is_no_key_is_told_with_the_nearest(frame, key, said, tmp_path):
    with pytest.raises(mmfuse.MmfuseError, match=said):
        mmfuse.fit(frame, **COLUMNS, **{key: 3}, out=tmp_path / "run")


@pytest.mark.parametrize("data", [[{"id": 1}], {"id": [1]}, 7])
def test_what_is_no_table_is_refused(data):
    with pytest.raises(mmfuse.MmfuseError, match=r"data: a pandas DataFrame, a datasets.Dataset or a path is expected"):
        mmfuse.fit(data, target="x")


def test_train_and_evaluate_take_rows_in_place_of_those_of_a_manifest(phantom, frame, tmp_path):
    manifest = yaml.safe_load((phantom / "manifest.yaml").read_text())
    whole = pd.read_csv(phantom / "data.csv", dtype=str, keep_default_na=False)
    values = {key: value for key, value in SMALL.items() if "." not in key}
    config = {**values, "name": "swapped", "data": {"manifest": str(phantom / "manifest.yaml"), "num_workers": 0}}
    run = mmfuse.train({**config, "output_dir": str(tmp_path / "frame")}, data=whole)
    plain = mmfuse.train({**config, "output_dir": str(tmp_path / "plain")})
    assert weights(run.dir) == weights(plain.dir)
    assert list(yaml.safe_load((run.dir / "manifest.yaml").read_text())["tasks"]) == list(manifest["tasks"])
    test = whole[whole["split"] == "test"]
    scores = mmfuse.evaluate(run.model_dir, test)
    assert scores["tasks"] == mmfuse.evaluate(plain.model_dir, phantom / "manifest.yaml")["tasks"]
