import json
from itertools import count

import pytest

from mmfuse.predict import FolderStudies, Predictor, chunks, predict_to_chunks, predict_to_file
from mmfuse.types import MmfuseError

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


@pytest.fixture(params=["jsonl", "csv", "parquet"])
def expected(request, predictor, studies, tmp_path):
    """A file's name, and the files that the local engine makes of it."""
    name = f"out.{request.param}"
    predict_to_file(predictor, studies, tmp_path / "local" / name)
    return name, contents(tmp_path / "local")


def test_killed_between_any_two_writes_it_ends_with_the_local_engines_bytes(
    predictor, studies, expected, tmp_path, monkeypatch
):
    """Before and after every write and deletion, each start going on with what the killed one left."""
    name, files = expected
    out = tmp_path / "chunks" / name
    stored = chunks._stored
    deaths = set()

    def run(last):
        """Die at the storage event of this number."""
        events = count(1)

        @chunks.contextmanager
        def dying(url, done):
            with stored(url, done) as found:
                if done != "read" and next(events) == last:
                    deaths.add((done, "before", url.rpartition("/")[2]))
                    raise Killed
                yield found
            if done != "read" and next(events) == last:
                deaths.add((done, "after", url.rpartition("/")[2]))
                raise Killed

        monkeypatch.setattr(chunks, "_stored", dying)
        try:
            predict_to_chunks(predictor, studies, str(out))
        except Killed:
            return False
        return True

    for last in (1, 2, 3, 4, 3, 4, 3, 5, 4, 3, 4):
        assert not run(last)
    for last in count(1):
        if run(last):
            break
    assert contents(out.parent) == files
    moments = {(done, when) for done, when, url in deaths if url in (name, "out.errors.jsonl", f"{name}.chunks")}
    assert moments == {("written", "before"), ("written", "after"), ("deleted", "before"), ("deleted", "after")}


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
    assert [done for done, _ in told] == [44, 52, 60] or [done for done, _ in told][-1] == 60
    assert not (tmp_path / "out.jsonl.chunks").exists()


@pytest.mark.parametrize(("change", "said"), [("other", "another model"), ("rest", "run with --engine ray")])
def test_an_interrupted_run_is_not_taken_for_another(predictor, studies, tmp_path, change, said):
    out = tmp_path / "out.jsonl"

    def die(found, numbers):
        raise Killed
        yield

    with pytest.raises(Killed):
        predict_to_chunks(predictor, studies, str(out), run=die, fingerprint="one")
    with pytest.raises(MmfuseError, match=said):
        if change == "other":
            predict_to_chunks(predictor, studies, str(out), fingerprint="two")
        else:
            predict_to_file(predictor, studies, out, fingerprint="one")
    predict_to_file(predictor, studies, out, overwrite=True)
    assert sorted(contents(tmp_path)) == ["out.errors.jsonl", "out.jsonl"]
    with pytest.raises(MmfuseError, match=r"out.jsonl exists already.*--overwrite"):
        predict_to_chunks(predictor, studies, str(out))


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


def test_a_file_at_a_url_appears_whole_or_not_at_all(object_store):
    ...
