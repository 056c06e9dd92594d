"""Forty sentences in each of twelve languages, written for these tests."""

from pathlib import Path

SENTENCES = {
    path.stem: path.read_text(encoding="utf-8").splitlines()
    for path in sorted((Path(__file__).parent / "fixtures" / "languages").glob("*.txt"))
}
"""By code of the language; half of them are to learn from (`[::2]`), half are held out (`[1::2]`)."""
