# Licensed under a 3-clause BSD style license - see LICENSE
"""The manifold of embeddings: maps in two dimensions, and the objects most like or unlike others."""

import numpy as np

from jaisp.exceptions import ConfigError, MissingDependencyError, suggest

__all__ = ["embedding_map", "most_similar", "oddness"]

_METHODS = ("pca", "umap")
_BLOCK = 4_000_000  # cosines held at a time
_NEIGHBOURS = 15  # of UMAP, its default
_FEWEST = 4  # rows that UMAP can lay out


def embedding_map(table, *, method="pca", rng=0):
    """
    Lay the embeddings out in two dimensions.

    Parameters
    ----------
    table : `~astropy.table.QTable`
        The catalogue.
    method : {"pca", "umap"}
        The two principal components, or UMAP (``pip install "jaisp[umap]"``), which keeps neighbours together
        and makes distances between groups meaningless. Fewer than four rows are always laid out by the first.
    rng : int
        Seed of UMAP.

    Returns
    -------
    places : `~numpy.ndarray` (n, 2)
        One place for each row. Principal components are ordered, and signed so that each has a positive
        skewness.

    Examples
    --------
    >>> import numpy as np
    >>> from astropy.table import QTable
    >>> from jaisp.catalog import embedding_map
    >>> vectors = np.random.default_rng(1).normal(size=(20, 8))
    >>> embedding_map(QTable({"embedding": vectors})).shape
    (20, 2)
    """
    if method not in _METHODS:
        raise ConfigError(f"method={method!r}{suggest(method, _METHODS)}; allowed: {', '.join(_METHODS)}")
    vectors = np.asarray(table["embedding"], float)
    if method == "umap":
        try:
            from umap import UMAP
        except ImportError:
            raise MissingDependencyError(
                "this needs umap-learn, which is not installed; run: pip install 'jaisp[umap]'"
            ) from None
        if len(vectors) >= _FEWEST:
            # A seed allows one process only, and UMAP warns unless it is told so.
            layout = UMAP(
                n_neighbors=min(_NEIGHBOURS, len(vectors) - 1), metric="cosine", random_state=rng, n_jobs=1
            )
            return layout.fit_transform(vectors).astype(float)
    if len(vectors) < 2:
        return np.zeros((len(vectors), 2))
    centred = vectors - vectors.mean(axis=0)
    _, _, axes = np.linalg.svd(centred, full_matrices=False)
    places = centred @ axes[:2].T
    return places * np.where((places**3).sum(axis=0) < 0, -1, 1)


def _unit(table):
    vectors = np.asarray(table["embedding"], float)
    return vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)


def most_similar(table, n=8):
    """
    Find the objects most like each object.

    Parameters
    ----------
    table : `~astropy.table.QTable`
        The catalogue.
    n : int
        Neighbours of each object; fewer if the table is short.

    Returns
    -------
    rows : `~numpy.ndarray` of int (n_rows, n)
        Rows of the neighbours, the most similar first; never the object itself.
    similarity : `~numpy.ndarray` (n_rows, n)
        Cosine of the embeddings.
    """
    vectors = _unit(table)
    n = max(min(n, len(vectors) - 1), 0)
    rows = np.zeros((len(vectors), n), int)
    similarity = np.zeros((len(vectors), n))
    step = max(1, _BLOCK // max(len(vectors), 1))  # a block of the matrix at a time
    for start in range(0, len(vectors) if n else 0, step):
        block = vectors[start : start + step] @ vectors.T
        block[np.arange(len(block)), start + np.arange(len(block))] = -np.inf
        chosen = np.sort(np.argpartition(-block, n - 1, axis=1)[:, :n], axis=1)
        found = np.take_along_axis(block, chosen, axis=1)
        order = np.argsort(-found, axis=1, kind="stable")
        rows[start : start + step] = np.take_along_axis(chosen, order, axis=1)
        similarity[start : start + step] = np.take_along_axis(found, order, axis=1)
    return rows, similarity


def oddness(table, n=8):
    """
    Measure how unlike all others each object is.

    Returns
    -------
    oddness : `~numpy.ndarray` (n_rows,)
        1 minus the mean cosine with the ``n`` most similar objects: near 0 in a crowd, large for what has no
        like in this catalogue. Faint and edge objects are odd too; cut on significance and flags first.
    """
    _, similarity = most_similar(table, n)
    return 1 - similarity.mean(axis=1) if similarity.shape[1] else np.zeros(len(similarity))
