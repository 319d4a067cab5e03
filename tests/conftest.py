# Licensed under a 3-clause BSD style license - see LICENSE
"""Fixtures of all tests."""

import os
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def realdata():
    """Folder of real images; tests that need it skip where it is absent."""
    folder = Path(os.environ.get("JAISP_REALDATA", Path(__file__).parents[2] / "shared" / "realdata"))
    if not folder.is_dir():
        pytest.skip(f"no real images in {folder} (set JAISP_REALDATA)")
    return folder
