"""The nouns that flow through mmfuse, with their shapes.

Axis letters, used in every docstring: `B` batch, `T` text tokens, `P` image patches, `S` any sequence, `D` width,
`L` labels, `U` caption tokens, `V` images of a study, `N` images of a batch.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from torch import Tensor


MODALITIES: tuple[str, ...] = ("text", "image")
MISSING_CLASS = -100
"""The class id of a row whose target is not known."""

_WORKERS_TRACEBACK = "\nOriginal Traceback (most recent call last):\n"
_UNSEEN = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]")
"""What moves a terminal's cursor, colours it, ends a line, or turns the order of letters round."""


def visible(text: object) -> str:
    """A text that may be anyone's as one line for a terminal: characters that a terminal obeys are escaped."""
    return _UNSEEN.sub(lambda found: found[0].encode("unicode_escape").decode(), str(text))


class MmfuseError(ValueError):
    """An error of the user's input: one line that says what is wrong, where, and what is legal.

    What a terminal would obey in it, such as a line break in a file's name, is escaped. Of one that a process of a
    DataLoader raised, which torch gives its traceback as message, the message is kept.
    """

    def __init__(self, message: str = ""):
        if _WORKERS_TRACEBACK in message:
            message = message.rstrip().splitlines()[-1].partition(": ")[2]
        super().__init__(visible("\n".join(message.splitlines())))


def first_line(error: Exception) -> str:
    """What another library's exception says first, a heading with what is below it; its kind where it says nothing."""
    first, *below = (str(error).strip() or type(error).__name__).splitlines()
    heads = first.rstrip().endswith(":") and below
    return (f"{first.rstrip()} {below[0].strip()}" if heads else first)[:400]


class Features(NamedTuple):
    """What an encoder gives, a fusion takes and gives, and a head takes.

    A modality that a row lacks is one learned token: `mask` True there, `pooled` equal to it, `present` False. So no
    row is ever all padding.

    Attributes:
        tokens: `(B, S, D)`.
        mask: `(B, S)` bool, True on real tokens.
        pooled: `(B, D)`.
        present: `(B,)` bool, False where the modality is missing; after a fusion the OR over the inputs it uses.
    """

    tokens: Tensor
    mask: Tensor
    pooled: Tensor
    present: Tensor


class Outputs(NamedTuple):
    """What a forward pass gives.

    Attributes:
        text: Of every row, what the text encoder gives, or the missing token; None where the model reads no text, or
            nobody asked for it. Tokens are one, the pooled vector, where neither the fusion nor a head reads tokens.
        image: The same of the images.
        fused: What the fusion gives; None where nobody needs it.
        logits: By task, what its head says.
    """

    text: Features | None
    image: Features | None
    fused: Features | None
    logits: dict[str, Any]


class Step(NamedTuple):
    """An optimiser step: the same on all processes and for all of its accumulated batches.

    Attributes:
        number: Steps done before it.
        total: Steps of the run.
        epoch: From 0.
        seed: For draws; it follows from the run's seed and `number` alone.
        targets: By task, labelled targets over all processes and accumulated batches, as its head counts them.
        rows: The same of rows.
    """

    number: int
    total: int
    epoch: int
    seed: int
    targets: dict[str, float]
    rows: float


Batch = dict[str, Any]
"""A plain dict. Packed entries hold only what exists, with the row each entry belongs to:

- `row_ids (B,)` int64, the rows' positions in their dataset (first, so that the batch size is its length);
- text: `input_ids (Bt, T)` int64, `text_mask (Bt, T)` bool, `text_row (Bt,)` int64 for the Bt rows that have a text;
- images: `pixels (N, 3, H, W)` uint8, `image_row (N,)` int64, `image_view (N,)` int64 (which image of its study);
- plain values that a GPU would else be asked for, and which may be left out: `text_full` whether `text_mask` is True
  everywhere, `most_images` how many the row with the most images has, and, of a batch on a GPU, `targets_here`: by task
  the target as a numpy array;
- where a method of training moves inputs: `text_shift (Bt, T, E)`, which is added to word embeddings, and `image_shift
  (N, 3, H, W)`, to normalised pixels;
- where features stand in for texts or images: `text_values` / `image_values (N, T, D)` float32 with
  `text_values_mask` / `image_values_mask (N, T)` bool, of the same rows; absent where no row of the batch has any;
- or, for a frozen and cached tower: `text_features` / `image_features`, a packed `Features` of the same rows;
- targets: `target.<task>`, `(B,)` int64 with -100 where missing, or `(B, L)` float with NaN where missing; of a
  captioning task `(B, U)` int64 token ids, the first one beginning the caption, with -100 behind its end;
- `ids`, a list of str (last).
"""


@dataclass(frozen=True)
class Sample:
    """One study: what is known of it before it becomes part of a batch.

    Attributes:
        id: Unique in its dataset.
        images: Paths, URLs or encoded bytes, or given to a `Predictor` also PIL images and numpy arrays; none, one or
            many. Where features stand in for them: one path, encoded bytes or an array.
        text: What the text encoder reads (features as `mmfuse.data.readers.features.as_text` writes them); None (or
            empty after strip) is a missing modality.
        group: Never in two splits (a patient); the id where nothing else is known.
        targets: By task: a label, a list of labels, or None where it is missing.
        subgroups: Values to break metrics down by.
        problem: Why this sample cannot be read, if that is known already; it becomes an error row.
        urls: Which URLs `images` may be, such as `("https",)` or `("https://host",)`, as `image.urls` of a manifest;
            None where a user gave them himself, and not a table: they are read.
        whole_text: Whether the text is a whole report, out of which the sections that a model reads are to be cut.
    """

    id: str
    images: tuple[Any, ...] = ()
    text: str | None = None
    group: str = ""
    targets: dict[str, Any] = field(default_factory=dict)
    subgroups: dict[str, str] = field(default_factory=dict)
    problem: str | None = None
    urls: tuple[str, ...] | None = None
    whole_text: bool = True


@dataclass(frozen=True)
class SelectiveCurve:
    """What is kept, and how much of that is right, if decisions below a confidence are held back; on validation rows.

    Attributes:
        rows: Labelled rows behind it.
        confidence: Rising, in [0, 1]; decisions at or above it are kept.
        coverage: The share of rows that each of them keeps.
        accuracy: The share of the kept rows that are right.
    """

    rows: int
    confidence: list[float]
    coverage: list[float]
    accuracy: list[float]


@dataclass(frozen=True)
class Prediction:
    """What a model says of one sample.

    Attributes:
        id: The sample's.
        tasks: By task: `label` and `probabilities` (classification), `labels` and `probabilities` (multilabel), or
            `caption`, `score` and `tokens` (captioning). Probabilities are by label name, in [0, 1]. A predictor that
            abstains adds `abstained`: true or false (classification), or the labels in doubt (multilabel).
        present: Which modalities were there, such as `("text", "image")`.
        notices: What the user should know, such as "report truncated at 128 tokens".
    """

    id: str
    tasks: dict[str, dict[str, Any]]
    present: tuple[str, ...] = ()
    notices: tuple[str, ...] = ()


class Stopped(KeyboardInterrupt):
    """A run was stopped, by Ctrl-C or SIGTERM; what it keeps is said in one line."""


@dataclass(frozen=True)
class Failure:
    """Why a sample has no prediction.

    Attributes:
        id: The sample's.
        reason: One line, without any of the report's text.
    """

    id: str
    reason: str
