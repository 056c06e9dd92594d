"""A manifest and rows in a run's folder: placed, recognised, and told apart."""

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mmfuse.data.given import MANIFEST, ROWS, OwnData, read_here
from mmfuse.types import MmfuseError

FRAME = pd.DataFrame({"id": ["a", "b"], "text": ["x", None]})


@pytest.fixture
def own(tmp_path) -> OwnData:
    FRAME.to_parquet(tmp_path / "given.parquet")
    return OwnData("name: one\nid: id\nrows: rows.parquet\n", tmp_path / "given.parquet")


@pytest.fixture
def run(own, tmp_path):
    (tmp_path / "run").mkdir()
    own.place(tmp_path / "run")
    return tmp_path / "run"


def test_what_is_placed_is_the_same_however_it_is_compressed_and_commented(own, run):
    own.check_same(run)
    pq.write_table(pq.read_table(run / ROWS), run / ROWS, compression="none", row_group_size=1)
    OwnData(f"# a comment\n{own.manifest}", own.rows).check_same(run)


@pytest.mark.parametrize(
    "rows",
    [FRAME[:1], FRAME[::-1], FRAME.assign(text=["x", "y"]), FRAME.assign(more=1), FRAME.rename(columns={"id": "i"})],
)
def test_other_rows_are_told(own, run, rows, tmp_path):
    rows.to_parquet(tmp_path / "other.parquet")
    with pytest.raises(MmfuseError, match=r"run: holds a run of other rows"):
        OwnData(own.manifest, tmp_path / "other.parquet").check_same(run)


def test_damaged_and_lost_rows_are_other_rows(own, run):
    for damage in (lambda: (run / ROWS).write_bytes(b"PAR1"), (run / ROWS).unlink):
        damage()
        with pytest.raises(MmfuseError, match="other rows"):
            own.check_same(run)


def test_another_manifest_is_told_by_its_key(own, run):
    with pytest.raises(
        MmfuseError, match=r"holds a run of other data \(text.columns was None, is now \['t'\]\)|text was"
    ):
        OwnData(f"{own.manifest}text: {{columns: [t]}}\n", own.rows).check_same(run)
    (run / MANIFEST).unlink()
    with pytest.raises(MmfuseError, match="the manifest was None"):
        own.check_same(run)


def test_a_manifest_elsewhere_is_not_the_runs_own(run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert read_here(run, "run/manifest.yaml") == (MANIFEST, ROWS)
    for other in ("manifest.yaml", "run/sub/manifest.yaml", "s3://bucket/manifest.yaml"):
        assert read_here(run, other) == ()


def test_a_large_table_is_compared_in_blocks(tmp_path):
    whole = pa.table({"id": [str(i) for i in range(10_000)]})
    pq.write_table(whole, tmp_path / "a.parquet", row_group_size=3000)
    (tmp_path / "run").mkdir()
    pq.write_table(whole, tmp_path / "run" / ROWS)
    (tmp_path / "run" / MANIFEST).write_text("name: x\n")
    OwnData("name: x\n", tmp_path / "a.parquet").check_same(tmp_path / "run")
