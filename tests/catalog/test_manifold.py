# Licensed under a 3-clause BSD style license - see LICENSE
"""Maps and neighbours of embeddings against what was put into them."""

import sys

import numpy as np
import pytest
from astropy.table import QTable

from jaisp.catalog import embedding_map, most_similar, oddness, plot_embedding
from jaisp.exceptions import ConfigError, MissingDependencyError


@pytest.fixture
def table():
    """Two groups of unit vectors, and one vector like none of them (the last)."""
    rng = np.random.default_rng(4)
    first, second, odd = np.eye(12)[:3]
    vectors = np.vstack([np.repeat([first, second], 20, axis=0), odd])
    vectors = vectors + 0.03 * rng.normal(size=vectors.shape)
    return QTable(
        {"embedding": (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)}
    )


def test_principal_components(table):
    """The same plane as from the covariance's eigenvectors, in order of variance."""
    places = embedding_map(table)
    vectors = np.asarray(table["embedding"], float)
    values, axes = np.linalg.eigh(np.cov(vectors.T))
    expected = (vectors - vectors.mean(0)) @ axes[:, [-1, -2]]
    np.testing.assert_allclose(np.abs(places), np.abs(expected), atol=1e-6)
    np.testing.assert_allclose(places.var(0, ddof=1), values[[-1, -2]], rtol=1e-5)
    assert abs(places[:20, 0].mean() - places[20:40, 0].mean()) > 1


@pytest.mark.slow  # what UMAP compiles
@pytest.mark.filterwarnings("ignore:Tensorflow not installed:ImportWarning")
def test_umap(table):
    """Groups stay together and apart from one another, the same seed gives the same map, few rows will do."""
    pytest.importorskip("umap", exc_type=ImportError)
    places = embedding_map(table, method="umap")
    first, second = places[:20], places[20:40]
    between = np.linalg.norm(first.mean(0) - second.mean(0))
    within = max(np.linalg.norm(group - group.mean(0), axis=1).max() for group in (first, second))
    assert between > 2 * within
    np.testing.assert_array_equal(embedding_map(table, method="umap"), places)
    assert not np.allclose(embedding_map(table, method="umap", rng=1), places)
    for n in (0, 1, 2, 3, 4, 5, 16):
        short = embedding_map(table[:n], method="umap")
        assert short.shape == (n, 2)
        assert np.isfinite(short).all()
    figure = plot_embedding(
        QTable({"id": np.arange(41), **{name: table[name] for name in table.colnames}}),
        np.arange(41.0),
        method="umap",
    )
    assert figure.axes[0].get_xlabel() == "UMAP axis 1"


def test_neighbours_are_the_brute_force_ones(table):
    rows, similarity = most_similar(table, 5)
    vectors = np.asarray(table["embedding"], float)
    matrix = vectors @ vectors.T
    np.fill_diagonal(matrix, -2)
    np.testing.assert_array_equal(rows, np.argsort(-matrix, axis=1)[:, :5])
    np.testing.assert_allclose(similarity, -np.sort(-matrix, axis=1)[:, :5], atol=1e-6)
    assert np.all((rows[:20] < 20) & (rows[:20] != np.arange(20)[:, None]))


def test_the_odd_one_is_found(table):
    values = oddness(table)
    assert values.argmax() == len(table) - 1
    assert values[-1] > 5 * np.median(values)


@pytest.mark.parametrize("n", [0, 1, 2])
def test_short_tables(table, n):
    assert embedding_map(table[:n]).shape == (n, 2)
    assert most_similar(table[:n])[0].shape == (n, max(n - 1, 0))
    assert oddness(table[:n]).shape == (n,)


def test_refusals(table, monkeypatch):
    with pytest.raises(ConfigError, match=r"method='umapp' .did you mean 'umap'"):
        embedding_map(table, method="umapp")
    monkeypatch.setitem(sys.modules, "umap", None)
    with pytest.raises(MissingDependencyError, match=r"pip install 'jaisp\[umap\]'"):
        embedding_map(table, method="umap")
