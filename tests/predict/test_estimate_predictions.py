"""What a dry run of prediction says, against the run."""

import math

from mmfuse.predict import FolderStudies, Predictor, predict_to_file
from mmfuse.predict.estimate import estimate_predictions, tell_bytes, tell_seconds


def test_a_dry_run_counts_what_the_run_reads_and_writes(model_dir, pairs, tmp_path):
    studies = FolderStudies(str(pairs))
    predictor = Predictor.from_pretrained(model_dir, chunk=8)
    estimate = estimate_predictions(predictor, studies)
    counts = predict_to_file(predictor, studies, tmp_path / "out.jsonl")
    assert estimate.studies == len(studies) == counts.predictions + counts.errors
    assert 24 < estimate.sampled <= 32  # four chunks, of which the last may be a short one
    assert 0 < estimate.failed <= counts.errors
    written = sum(path.stat().st_size for path in tmp_path.iterdir())
    assert math.isclose(estimate.bytes_out, written, rel_tol=0.1)
    read = sum(path.stat().st_size for path in pairs.iterdir())
    assert math.isclose(estimate.bytes_in, read, rel_tol=0.1)
    assert estimate.seconds > 0
    assert f"studies:  {len(studies)}\n" in estimate.text()


def test_a_folder_smaller_than_a_chunk_is_predicted_whole(model_dir, pairs):
    studies = FolderStudies(str(pairs))
    estimate = estimate_predictions(Predictor.from_pretrained(model_dir), studies)
    assert estimate.sampled == len(studies)


def test_sizes_and_times_in_words():
    assert [tell_bytes(size) for size in (12, 1536, 3 * 2**40)] == ["12 B", "1.5 KiB", "3 TiB"]
    assert [tell_seconds(value) for value in (0.05, 45, 1800, 10_800)] == ["50 ms", "45 s", "30 min", "3.0 h"]
