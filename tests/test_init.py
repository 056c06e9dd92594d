"""`mmfuse init` at the command line: what it writes is read by the other commands, and it overwrites nothing."""

import shlex
from pathlib import Path

import pytest
from public_sets import WRITERS
from raw_layouts import LAYOUTS

from mmfuse.config import load_config
from mmfuse.data.tables.manifest import load_manifest

PAGE = (Path(__file__).parents[1] / "docs" / "start.md").read_text(encoding="utf-8")


@pytest.fixture
def scans(tmp_path, monkeypatch):
    LAYOUTS["key_is_value"][0](tmp_path / "scans")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_it_says_what_it_guessed_and_ends_with_three_commands(mmfuse, scans):
    code, told, _ = mmfuse("init", "scans/scans.csv", "--target", "finding")
    assert code == 0
    assert "text: meta is left out: it tells the target" in told
    assert told.splitlines()[-3:] == [
        "next:  mmfuse data check scans.yaml",
        "       mmfuse train scans.train.yaml",
        "       mmfuse predict runs/scans/model scans/scans.csv --out predictions.jsonl",
    ]
    config = load_config("scans.train.yaml")
    assert load_manifest(config.data.manifest).rows == "scans/scans.csv"
    assert config.name == "scans"
    code, audited, _ = mmfuse(*shlex.split(told.splitlines()[-3])[2:])
    assert "scans: 80 rows" in audited


def test_the_second_run_overwrites_nothing_unless_it_is_told_to(mmfuse, scans):
    mmfuse("init", "scans/scans.csv", "--target", "finding")
    (scans / "scans.yaml").write_text("mine")
    code, _, error = mmfuse("init", "scans/scans.csv", "--target", "finding")
    assert code == 2
    assert error.strip() == (
        "error: scans.yaml is there already: give --overwrite to replace it, or another folder with --out"
    )
    assert (scans / "scans.yaml").read_text() == "mine"
    assert mmfuse("init", "scans/scans.csv", "--target", "finding", "--overwrite")[0] == 0
    assert (scans / "scans.yaml").read_text() != "mine"


def test_a_folder_s_rows_are_written_beside_the_manifest_and_one_modality_needs_no_fusion(mmfuse, tmp_path):
    LAYOUTS["folder_a_label"][0](tmp_path / "animals")
    code, told, _ = mmfuse("init", tmp_path / "animals", "--out", tmp_path / "out")
    assert code == 0
    assert f"written: {tmp_path / 'out/animals.rows.parquet'}" in told
    assert load_config(tmp_path / "out/animals.train.yaml").fusion["name"] == "image_only"
    assert len(mmfuse("data", "check", tmp_path / "out/animals.yaml")[1]) > 100


def test_of_a_public_set_the_first_command_prepares_it(mmfuse, tmp_path, monkeypatch):
    WRITERS["hateful_memes"](tmp_path / "memes")
    monkeypatch.chdir(tmp_path)
    code, told, _ = mmfuse("init", "memes")
    assert code == 0
    commands = [line[7:] for line in told.splitlines()[-3:]]
    assert commands[0] == "mmfuse data prepare hateful_memes --from memes --out data"
    assert mmfuse(*shlex.split(commands[0])[1:])[0] == 0
    assert load_manifest(load_config("hateful_memes.train.yaml").data.manifest).id == "id"


def test_the_page_shows_what_is_printed(mmfuse, scans):
    code, told, _ = mmfuse("init", "scans/scans.csv", "--target", "finding")
    shown = PAGE.split("```text\n")[1].split("```")[0]
    assert code == 0
    assert shown == told
