from contextlib import contextmanager
from itertools import count

import fsspec
import pytest
from typer.testing import CliRunner

from mmfuse.cli import app
from mmfuse.data.files import stores
from mmfuse.predict import FolderStudies, Predictor, chunks, predict_to_chunks, predict_to_file
from mmfuse.types import MmfuseError, Stopped

SIZE = 8


class Killed(BaseException):
    """Nothing in the library may catch it."""


@pytest.fixture(scope="module")
def predictor(model_dir):
    return Predictor.from_pretrained(model_dir, chunk=SIZE)


@pytest.fixture(scope="module")
def studies(pairs):
    return FolderStudies(str(pairs))


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_stopped_it_says_how_many_are_kept(predictor, studies, tmp_path):
    """Those that are committed, told or not."""

    def run(chunks_, numbers):
        yield from ()
        list(chunks.commit_chunks(predictor, studies, chunks_, numbers[:2]))
        raise KeyboardInterrupt

    with pytest.raises(Stopped, match=r"^stopped; 16 of 60 studies are kept; the same command resumes$"):
        predict_to_chunks(predictor, studies, str(tmp_path / "out.jsonl"), run=run)


@pytest.mark.parametrize(
    ("where", "suffix"), [("disk", "jsonl"), ("disk", "csv"), ("disk", "parquet"), ("store", "csv")]
)
def test_killed_between_any_two_writes_it_ends_with_the_local_engines_bytes(
    predictor, studies, tmp_path, monkeypatch, request, where, suffix
):
    """Before and after every write and deletion, each start going on with what the killed one left."""
    name = f"out.{suffix}"
    predict_to_file(predictor, studies, tmp_path / "local" / name)
    folder = str(tmp_path / "chunks") if where == "disk" else request.getfixturevalue("object_store")
    out = f"{folder}/{name}"
    stored = stores.stored

    def killed_at(last):
        """Die at the storage event of this number: a write or deletion that begins, or one that has ended."""
        events = count(1)

        @contextmanager
        def dying(url, done):
            with stored(url, done) as found:
                if done in ("written", "deleted") and next(events) == last:
                    raise Killed
                yield found
            if done in ("written", "deleted") and next(events) == last:
                raise Killed

        monkeypatch.setattr(stores, "stored", dying)
        with pytest.raises(Killed):
            predict_to_chunks(predictor, studies, out)

    for last in (1, 2, 3, 4, 3, 4, 3, 5, 4, 3, 4):  # the claim, and the chunks: the last kill leaves all of them there
        killed_at(last)
    for last in (1, 2, 3, 4, 5, 6):  # the two files, one inside the other, and that they are finished
        killed_at(last)
    for last in (1, 2):  # the chunks are cleared away
        killed_at(last)
    system, root = fsspec.core.url_to_fs(folder)
    found = {path.rpartition("/")[2]: system.cat_file(path) for path in system.find(root, refresh=True)}
    assert found == contents(tmp_path / "local")


def test_a_second_start_does_only_what_is_missing(predictor, studies, tmp_path):
    out = str(tmp_path / "out.jsonl")
    taken = []

    def run(found, numbers):
        """Every third chunk, then die."""
        taken.append(numbers)
        yield from chunks.commit_chunks(predictor, studies, found, numbers[::3])
        raise Killed

    for _ in range(2):
        with pytest.raises(Killed):
            predict_to_chunks(predictor, studies, out, run=run)
    assert taken == [[0, 1, 2, 3, 4, 5, 6, 7], [1, 2, 4, 5, 7]]
    told = []
    counts = predict_to_chunks(predictor, studies, out, progress=lambda *seen: told.append(seen))
    assert (counts.predictions, counts.errors) == (57, 3)
    assert [done for done, _ in told] == [48, 56, 60]
    assert not (tmp_path / "out.jsonl.chunks").exists()


@pytest.mark.parametrize(
    ("again", "said"),
    [
        (
            lambda model, studies, out: predict_to_chunks(model, studies, str(out), fingerprint="another"),
            "another model",
        ),
        (lambda *of: predict_to_file(*of, fingerprint="one"), "run with --engine ray"),
    ],
)
def test_an_interrupted_run_is_not_taken_for_another(predictor, studies, tmp_path, again, said):
    out = tmp_path / "out.jsonl"

    def die(found, numbers):
        raise Killed
        yield

    with pytest.raises(Killed):
        predict_to_chunks(predictor, studies, str(out), run=die, fingerprint="one")
    with pytest.raises(MmfuseError, match=said):
        again(predictor, studies, out)
    predict_to_file(predictor, studies, out, overwrite=True)
    assert sorted(contents(tmp_path)) == ["out.errors.jsonl", "out.jsonl"]
    with pytest.raises(MmfuseError, match=r"out.jsonl exists already.*--overwrite"):
        predict_to_chunks(predictor, studies, str(out))


def test_an_interrupted_run_to_a_url_keeps_its_errors_from_one_to_another_suffix(predictor, studies, object_store):
    def die(found, numbers):
        raise Killed
        yield

    with pytest.raises(Killed):
        predict_to_chunks(predictor, studies, f"{object_store}/out.csv", run=die)
    with pytest.raises(MmfuseError, match=r"a run to out.csv was interrupted here"):
        predict_to_chunks(predictor, studies, f"{object_store}/out.jsonl")


def test_a_damaged_chunk_is_named_and_never_joined(predictor, studies, tmp_path):
    out = tmp_path / "out.jsonl"

    def cut(found, numbers):
        yield from chunks.commit_chunks(predictor, studies, found, numbers)
        third = sorted((tmp_path / "out.jsonl.chunks").glob("chunk-*"))[2]
        third.write_bytes(third.read_bytes()[:-1])

    with pytest.raises(MmfuseError, match=r"chunk-00000002-.*damaged; delete it"):
        predict_to_chunks(predictor, studies, str(out), run=cut)
    assert not out.exists()
    next((tmp_path / "out.jsonl.chunks").glob("chunk-00000002*")).unlink()
    assert predict_to_chunks(predictor, studies, str(out)).predictions == 57


def test_studies_that_vanish_on_the_way_are_told(predictor, studies, tmp_path):
    class Shrinking:
        identity = studies.identity

        def __len__(self):
            return len(studies)

        def read(self, start, stop):
            return studies.read(start, min(stop, 30))

    with pytest.raises(MmfuseError, match=r"studies 24 to 32: 6 were read"):
        predict_to_chunks(predictor, Shrinking(), str(tmp_path / "out.jsonl"))


def test_the_command_line_writes_to_a_url_with_the_local_engine(model_dir, studies, pairs, object_store, tmp_path):
    done = CliRunner().invoke(app, ["predict", str(model_dir), str(pairs), "--out", f"{object_store}/out.parquet"])
    assert done.exit_code == 0, done.output
    assert f"57 predictions in {object_store}/out.parquet, 3 errors in {object_store}/out.errors.jsonl" in done.output
    predict_to_file(Predictor.from_pretrained(model_dir), studies, tmp_path / "out.parquet")
    system, root = fsspec.core.url_to_fs(object_store)
    assert system.cat_file(f"{root}/out.parquet") == (tmp_path / "out.parquet").read_bytes()


def write_and_die(url, size):
    with stores.writing(url) as handle:
        handle.write(bytes(size))
        raise Killed


def test_a_file_at_a_url_appears_whole_or_not_at_all(object_store):
    system, root = fsspec.core.url_to_fs(object_store)
    for size in (0, 60 * 2**20):  # s3fs sends parts of 50 MiB
        url = f"{object_store}/file"
        with pytest.raises(Killed):
            write_and_die(url, size)
        assert system.ls(root, refresh=True) == []
        with stores.writing(url) as handle:
            handle.write(bytes(size))
        assert system.info(f"{root}/file", refresh=True)["size"] == size
        system.rm(f"{root}/file")
