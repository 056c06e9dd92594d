from pathlib import Path

import pandas as pd
import pytest
from api_runs import COLUMNS, SMALL, rows_of

import mmfuse
from mmfuse.data.synthetic.phantom import write_phantom


@pytest.fixture(scope="session")
def phantom(tmp_path_factory) -> Path:
    """The folder of 60 SYNTHETIC studies, with their `data.csv`."""
    return write_phantom(tmp_path_factory.mktemp("data") / "phantom", 60, seed=0).parent


@pytest.fixture
def frame(phantom) -> pd.DataFrame:
    return rows_of(phantom)


@pytest.fixture(scope="session")
def model(phantom, tmp_path_factory) -> mmfuse.Model:
    """A model that was fitted on a frame."""
    return mmfuse.fit(rows_of(phantom), **COLUMNS, **SMALL, out=tmp_path_factory.mktemp("runs") / "fitted")
