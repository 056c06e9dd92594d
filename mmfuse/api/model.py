"""`mmfuse.Model`: a trained model as one works with it."""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from mmfuse.api.going_on import go_on
from mmfuse.api.page import Page, page_of
from mmfuse.api.predictions import open_rows, predict_rows, stack
from mmfuse.api.quiet import quiet_libraries
from mmfuse.api.told import tell
from mmfuse.bars import Bar
from mmfuse.evaluation.evaluate import Reading, evaluate
from mmfuse.evaluation.of_run import manifest_of_run, run_of
from mmfuse.metrics.results import Report
from mmfuse.predict import Predictor, load_to_predict
from mmfuse.predict.vectors import Embedder, encode_samples
from mmfuse.registry import nearest
from mmfuse.training.claim import has_begun
from mmfuse.types import Features, MmfuseError


class Model:
    """A trained model, of a run's folder, a model folder or a Hub id; its weights are read when they are first needed.

    Args:
        folder: `runs/NAME`, `runs/NAME/model`, or a Hub id.

    Attributes:
        folder: The model folder, or the Hub id.
        run: The folder of the run that it lies in; None where it lies in none.

    Raises:
        MmfuseError: A folder of this name holds neither.

    Example:
        model = mmfuse.Model.load("runs/finding")
        table = model.predict(frame)
        table[table["error"].notna()]
    """

    def __init__(self, folder: str | os.PathLike[str]):
        path = Path(folder)
        if path.is_dir():
            inside = path / "model"
            if not (path / "config.json").is_file() and not (inside / "config.json").is_file():
                begun = has_begun(path)
                what = "a run that is not finished; the same call of fit resumes it" if begun else "no model and no run"
                raise MmfuseError(f"{path}: {what}")
            path = path if (path / "config.json").is_file() else inside
        self.folder = str(path if path.is_dir() else folder)
        self.run = run_of(path) if path.is_dir() else None
        self._predictor: tuple[dict[str, Any], Predictor] | None = None

    @classmethod
    def load(cls, folder: str | os.PathLike[str]) -> Model:
        """The model of a run's folder, a model folder or a Hub id."""
        return cls(folder)

    def __repr__(self) -> str:
        return f"mmfuse.Model({str(self.run or self.folder)!r})"

    def predict(self, data: Any, *, root: str | None = None, **options: Any) -> pd.DataFrame:
        """A row for each row, in the order and with the index of what is given; nothing is lost.

        Args:
            data: A pandas DataFrame or a `datasets.Dataset` with the columns of the training, or what `mmfuse predict`
                takes: a file of rows, a folder, a manifest, shards.
            root: What relative paths of images are relative to; default, of a frame: as in the run, else the current
                directory, and of a file of rows: its folder.
            **options: As of `mmfuse.Predictor`: `batch_size`, `missing`, `abstain`, `operating_point`, `precision`,
                `generation`, `device`, ...

        Returns:
            `id` (the column of the ids, else the index), by task the decision (`TASK.label`, `TASK.labels`,
            `TASK.caption`, ...) and its probabilities (`TASK.p.LABEL`), `present`, `notices`, and `error`: why a row
            has no prediction, None where it has one.

        Raises:
            MmfuseError: Nothing is there, a column is missing that the model reads, or an option is not legal.
        """
        predictor = self._predict_with(options)
        rows = open_rows(data, predictor.model, *self._roots(root))
        with Bar("predicting") as bar:
            return predict_rows(predictor, rows, bar.update)

    def evaluate(self, data: Any, **options: Any) -> Report:
        """The scores of rows that have targets, each with an interval, as `mmfuse.evaluate` gives them.

        Args:
            data: A DataFrame, a `datasets.Dataset` or a file of rows, all of which are scored, those of the training
                too if they are among them; or a manifest, of which the test split is.
            **options: As of `mmfuse.evaluate`.

        Raises:
            MmfuseError: As `mmfuse.evaluate`, or it takes no such option.
        """
        _check_options(options, _OF_EVALUATE, "evaluate")
        with quiet_libraries(), Bar("evaluating") as bar:
            asked: Any = {"progress": bar.update, **options}
            return evaluate(self.folder, data, **asked)

    def report(self, *, with_examples: bool = False) -> Page:
        """The run's page: in a notebook it shows itself, elsewhere it is the path of the file.

        Args:
            with_examples: Write it anew with the worst errors and the surest successes, their pictures and texts, which
                may be data of persons.

        Raises:
            MmfuseError: The model does not lie in the folder of its run.
        """
        if self.run is None:
            raise MmfuseError(f"{self.folder}: the folder of its run is not known, and so there is no page of it")
        return page_of(self.run, with_examples)

    def embed(self, data: Any, what: str = "fused", *, root: str | None = None, **options: Any) -> np.ndarray:
        """A vector a row, `(rows, dim)` float32, in the order of the rows.

        A row that has none, as it lacks what is asked for or cannot be read, is NaN; how many, and why the first, is
        told. A modality that `what` does not need is not read.

        Args:
            data: As of `predict`.
            what: "fused": what the heads of labels and numbers see; "text" or "image": pooled by that tower.
            root: As of `predict`.
            **options: As of `predict`.

        Raises:
            MmfuseError: As `predict`, or the model has no such vectors.
        """
        embedder = Embedder(self._predict_with(options), what)
        rows = open_rows(data, embedder.model, *self._roots(root))
        with Bar("embedding") as bar:
            vectors, failed = stack(embedder(rows.samples), embedder.dim, lambda done: bar.update(done, rows.total))
        if failed:
            tell([f"{len(failed)} of {len(vectors)} rows have no vector (NaN); the first: {failed[0].reason}"])
        return vectors

    def encode(self, data: Any, *, root: str | None = None, **options: Any) -> tuple[Features | None, Features | None]:
        """The text and image `Features` of rows, tokens and all, on the CPU; None for a modality that is not used.

        Tokens are one, the pooled vector, where neither the fusion nor a head reads tokens. A missing modality is its
        learned token, with `present` False.

        Args:
            data: As of `predict`.
            root: As of `predict`.
            **options: As of `predict`.

        Raises:
            MmfuseError: As `predict`; also where one row cannot be read, as there is no `Features` of nothing.
        """
        predictor = self._predict_with(options)
        return encode_samples(predictor, open_rows(data, predictor.model, *self._roots(root)).samples)

    def fit(self, more: Any, *, out: str | os.PathLike[str] | None = None, **overrides: Any) -> Model:
        """Go on with this model on other rows (`init_from`); this one stays as it is.

        The rows are read as those of its training were, and so is the config, but for what is said here.

        Args:
            more: Rows with the columns of the training, targets too, as of `mmfuse.fit`.
            out: The new run's folder; default: runs/NAME-more.
            **overrides: As of `mmfuse.fit`.

        Returns:
            The new model.

        Raises:
            MmfuseError: The run of this model is not known, the rows lack a column, or a key is not legal.
        """
        if self.run is None:
            raise MmfuseError(f"{self.folder}: its run's folder is not known; mmfuse.fit(data, init_from=...) takes it")
        return Model(go_on(self.folder, self.run, more, out, overrides))

    def _predict_with(self, options: Mapping[str, Any]) -> Predictor:
        """A predictor with these options; those change the model, so other ones need it anew."""
        if self._predictor is None or self._predictor[0] != options:
            _check_options(options, ["root", *_OF_PREDICTOR], "predict")
            self._predictor = None  # one model at a time
            with quiet_libraries():
                self._predictor = dict(options), Predictor(load_to_predict(self.folder), **options)
        return self._predictor[1]

    def _roots(self, root: str | None) -> tuple[str | None, str]:
        """What paths are relative to: as asked, and of frames else."""
        image = manifest_of_run(self.run).get("image") if self.run is not None else None
        return root and os.path.abspath(root), (image or {}).get("root") or os.getcwd()


def _arguments(function: Callable[..., Any], *but: str) -> list[str]:
    return [name for name in inspect.signature(function).parameters if name not in but]


_OF_PREDICTOR = _arguments(Predictor.__init__, "self", "model", "forward")
_OF_EVALUATE = [*_arguments(evaluate, "model", "manifest", "reading"), *Reading.__annotations__]


def _check_options(options: Mapping[str, Any], legal: Sequence[str], where: str) -> None:
    """Refuse what is not taken.

    Raises:
        MmfuseError: It names the nearest that is.
    """
    for name in options:
        if name not in legal:
            raise MmfuseError(f"{where}: {name}: no such argument; {nearest(name, ['data', *legal])}")
