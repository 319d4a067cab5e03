# Licensed under a 3-clause BSD style license - see LICENSE
"""Survey files, weights to run with, and an empty place to run in."""

import pytest

from .helpers import write_euclid, write_rubin


@pytest.fixture(scope="session")
def survey_files(tmp_path_factory):
    """Two bands of each survey: ``{"rubin": [...], "euclid": [...]}``."""
    folder = tmp_path_factory.mktemp("survey_files")
    return {
        "rubin": [write_rubin(folder / f"rubin_{band}.fits", band) for band in "gi"],
        "euclid": [
            write_euclid(folder / f"euclid_{band}.fits", name)
            for band, name in (("VIS", "VIS"), ("H", "NIR_H"))
        ],
    }


@pytest.fixture(scope="session")
def weights(tmp_path_factory):
    """Weights of the smallest model, untrained."""
    import torch

    from jaisp.models import DETRJEPA, DETRJEPAConfig

    folder = tmp_path_factory.mktemp("weights")
    with torch.random.fork_rng():
        torch.manual_seed(0)
        DETRJEPA(DETRJEPAConfig.tiny()).save_pretrained(folder)
    return str(folder)


@pytest.fixture
def workplace(tmp_path, monkeypatch):
    """An empty current folder."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def contents(workplace):
    """Call it for the names of all files in the current folder, hidden ones too."""
    return lambda: sorted(str(path.relative_to(workplace)) for path in workplace.rglob("*"))
