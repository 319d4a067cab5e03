# Licensed under a 3-clause BSD style license - see LICENSE
"""What the embeddings of two surveys know of their objects, each gauge beside its null."""

from dataclasses import dataclass, fields

import numpy as np
from scipy.optimize import linear_sum_assignment

from jaisp.catalog import match_positions
from jaisp.exceptions import ConfigError

__all__ = [
    "Objects",
    "Pairs",
    "Retrieval",
    "effective_rank",
    "match_by_similarity",
    "match_on_sky",
    "retrieval",
    "right_partner",
    "slot_spread",
    "true_pairs",
]

_CHI2_99 = 9.21  # 99 % of chi-square with two degrees of freedom


@dataclass(frozen=True)
class Objects:
    """
    Objects of one survey, tile by tile.

    Parameters
    ----------
    embedding : ndarray, shape (n, d)
        Unit vectors.
    xy : ndarray, shape (n, 2)
        Positions in arcsec from a corner of the tile.
    error : ndarray, shape (n,)
        1 sigma of the position per axis, arcsec.
    tile : ndarray of int, shape (n,)
        Tile that each object is in.
    source : ndarray of int, shape (n,)
        True source behind it, -1 without one; a number means the same source in both surveys.
    """

    embedding: np.ndarray
    xy: np.ndarray
    error: np.ndarray
    tile: np.ndarray
    source: np.ndarray

    def __post_init__(self):
        shapes = {item.name: np.shape(getattr(self, item.name)) for item in fields(self)}
        n = shapes["tile"]
        if len(n) != 1 or any(shape[:1] != n for shape in shapes.values()) or shapes["xy"] != (*n, 2):
            raise ConfigError(
                f"objects have columns of shapes {shapes}; needed: embedding (n, d), xy (n, 2), the rest (n,)"
            )

    def __len__(self):
        return len(self.tile)

    def select(self, index):
        """Return the objects of an index or a mask."""
        return Objects(**{item.name: getattr(self, item.name)[index] for item in fields(self)})


@dataclass(frozen=True)
class Pairs:
    """
    Pairs of objects of two surveys.

    Attributes
    ----------
    first, second : ndarray of int, shape (k,)
        Their indices.
    similarity : ndarray, shape (k,)
        Cosine of the embeddings.
    n_possible : int
        Objects of the first survey that could have been paired.
    """

    first: np.ndarray
    second: np.ndarray
    similarity: np.ndarray
    n_possible: int

    @property
    def fraction(self):
        """Paired fraction of the first survey's objects; NaN without objects."""
        return len(self.first) / self.n_possible if self.n_possible else np.nan

    @property
    def mean(self):
        """Mean similarity; NaN without pairs."""
        return float(self.similarity.mean()) if len(self.similarity) else np.nan


def true_pairs(first, second):
    """
    Pairs of objects with one true source behind them.

    Parameters
    ----------
    first, second : `Objects`
        Objects of the two surveys; a source stands behind one object of each at most.

    Returns
    -------
    `Pairs`
    """
    known1, known2 = np.flatnonzero(first.source >= 0), np.flatnonzero(second.source >= 0)
    _, i, j = np.intersect1d(first.source[known1], second.source[known2], return_indices=True)
    return _pairs(first, second, known1[i], known2[j], len(known1))


def _pairs(first, second, i, j, n_possible):
    similarity = np.einsum("kd,kd->k", first.embedding[i], second.embedding[j]).astype(float)
    return Pairs(i, j, similarity, n_possible)


def _tiles(first, second, shift):
    """Indices of the objects of each tile of the first survey, and of the tile ``shift`` on of the second."""
    tiles = np.union1d(first.tile, second.tile)
    for tile, other in zip(tiles, np.roll(tiles, -shift), strict=True):
        yield np.flatnonzero(first.tile == tile), np.flatnonzero(second.tile == other)


def match_on_sky(first, second, *, shift=0, similarity_weight=3.0, systematic=0.06):
    """
    Pairs that the matching of training makes, without knowing the truth.

    One-to-one within each tile: half the squared separation in units of its error plus ``similarity_weight``
    times (1 - cosine) is least, within 1 arcsec and the 99 % chi-square. That of the catalogue is
    `~jaisp.catalog.match_positions`.

    Parameters
    ----------
    first, second : `Objects`
        Objects of the two surveys.
    shift : int
        0 for true pairs of images. With another number each tile of the first survey is laid over the tile
        so many places farther of the second: their objects have nothing in common (the null).
    similarity_weight : float
        Weight of the embeddings; 0 for position alone.
    systematic : float
        Error in arcsec per axis beside those of the objects; 0.06 is what training allows for the offset
        between the surveys.

    Returns
    -------
    `Pairs`
    """
    rows, columns = [np.zeros(0, int)], [np.zeros(0, int)]
    for i, j in _tiles(first, second, shift):
        distance = np.linalg.norm(first.xy[i, None] - second.xy[j], axis=-1)
        chi2 = distance**2 / (first.error[i, None] ** 2 + second.error[j] ** 2 + systematic**2)
        cost = 0.5 * chi2 + similarity_weight * (1 - first.embedding[i] @ second.embedding[j].T)
        allowed = (distance < 1) & (chi2 < _CHI2_99)
        row, column = linear_sum_assignment(np.where(allowed, cost, 1e6))
        paired = allowed[row, column]
        rows.append(i[row[paired]])
        columns.append(j[column[paired]])
    return _pairs(first, second, np.concatenate(rows), np.concatenate(columns), len(first))


def match_by_similarity(first, second, *, shift=0):
    """
    Pairs of the largest total similarity within each tile, one-to-one, wherever they are.

    All objects of the poorer side are paired, so that the mean similarity is high even between tiles with
    nothing in common: about .29 for 100 random unit vectors in 64 dimensions.

    Parameters
    ----------
    first, second : `Objects`
        Objects of the two surveys.
    shift : int
        As in `match_on_sky`.

    Returns
    -------
    `Pairs`
    """
    rows, columns = [np.zeros(0, int)], [np.zeros(0, int)]
    for i, j in _tiles(first, second, shift):
        row, column = linear_sum_assignment(-first.embedding[i] @ second.embedding[j].T)
        rows.append(i[row])
        columns.append(j[column])
    return _pairs(first, second, np.concatenate(rows), np.concatenate(columns), len(first))


@dataclass(frozen=True)
class Retrieval:
    """
    How high the true partner ranks among the candidates.

    Attributes
    ----------
    rank : ndarray of int, shape (k,)
        Candidates at least as similar as the true partner; 0 when it is the most similar. Ties count
        against it, so that constant embeddings retrieve nothing.
    n_candidates : ndarray of int, shape (k,)
        Number of candidates, the partner among them.
    tile : ndarray of int, shape (k,)
        Tile of the object.
    """

    rank: np.ndarray
    n_candidates: np.ndarray
    tile: np.ndarray

    def top(self, k=1):
        """Fraction of objects whose partner is among the ``k`` most similar; NaN without objects."""
        return float(np.mean(self.rank < k)) if len(self.rank) else np.nan

    def chance(self, k=1):
        """Value of `top` for random embeddings."""
        return float(np.mean(np.minimum(k / self.n_candidates, 1))) if len(self.rank) else np.nan


def retrieval(first, second, *, within="tile"):
    """
    Find the partner of each object in the other survey by embedding alone.

    Parameters
    ----------
    first, second : `Objects`
        Objects that ask, and the candidates.
    within : {"tile", "sky"}
        Whether the candidates are those of the object's tile, or all.

    Returns
    -------
    `Retrieval`
        One entry for each of `true_pairs`.
    """
    if within not in ("tile", "sky"):
        raise ConfigError(f"candidates within {within!r}; allowed: 'tile', 'sky'")
    pairs = true_pairs(first, second)
    rank, count = np.zeros((2, len(pairs.first)), int)
    for tile in np.unique(first.tile[pairs.first]):
        asking = np.flatnonzero(first.tile[pairs.first] == tile)
        i, j = pairs.first[asking], pairs.second[asking]
        candidates = np.arange(len(second))
        if within == "tile":  # the partner may lie just across the tile's edge
            candidates = np.union1d(np.flatnonzero(second.tile == tile), j)
        similarity = first.embedding[i] @ second.embedding[candidates].T
        own = similarity[np.arange(len(i)), np.searchsorted(candidates, j)]
        rank[asking] = (similarity >= own[:, None]).sum(axis=1) - 1
        count[asking] = len(candidates)
    return Retrieval(rank, count, first.tile[pairs.first])


def right_partner(first, second, *, how="both", offset=0.0, systematic=0.06, rng=0, **options):
    """
    Whether matching by position, or by position and embedding, finds the true partner.

    Parameters
    ----------
    first, second : `Objects`
        Objects of the two surveys.
    how : {"nearest", "position", "both"}
        The nearest object of the same tile; one-to-one matching as in the catalogue
        (`~jaisp.catalog.match_positions`) by position; the same by position and embedding. An object that
        stays unmatched has not found its partner.
    offset : float
        Arcsec by which the first survey is shifted in each tile, in a random direction that the matching is
        not told.
    systematic : float
        Error in arcsec per axis that the matching allows for beside those of the objects.
    rng : `~numpy.random.Generator` or int
        For the directions.
    **options
        As in `~jaisp.catalog.match_positions`.

    Returns
    -------
    ndarray of bool, shape (k,)
        One entry for each of `true_pairs`.
    """
    if how not in ("nearest", "position", "both"):
        raise ConfigError(f"matching by {how!r}; allowed: 'nearest', 'position', 'both'")
    rng = np.random.default_rng(rng)
    tiles, place = np.unique(first.tile, return_inverse=True)
    angle = rng.uniform(0, 2 * np.pi, len(tiles))[place]
    moved = first.xy + offset * np.stack([np.cos(angle), np.sin(angle)], axis=-1)
    first = Objects(first.embedding, moved, first.error, first.tile, first.source)
    partner = np.full(len(first), -1)
    for i, j in _tiles(first, second, 0):
        if how == "nearest" and len(i) and len(j):
            distance = np.linalg.norm(first.xy[i, None] - second.xy[j], axis=-1)
            partner[i] = j[distance.argmin(axis=1)]
        elif how != "nearest":
            seen = [each.embedding[k] if how == "both" else None for each, k in ((first, i), (second, j))]
            found = match_positions(
                first.xy[i],
                second.xy[j],
                error1=first.error[i],
                error2=second.error[j],
                embedding1=seen[0],
                embedding2=seen[1],
                systematic=systematic,
                **options,
            )
            partner[i[found.first]] = j[found.second]
    pairs = true_pairs(first, second)
    return partner[pairs.first] == pairs.second


def effective_rank(embedding):
    """
    Number of directions that embeddings use: exponential of the entropy of their variance over directions.

    The variance along each principal axis, over the total, is taken as a probability (Roy & Vetterli 2007).

    Parameters
    ----------
    embedding : ndarray, shape (n, d)
        Embeddings of different objects.

    Returns
    -------
    float
        From 1 (all along one line) to d (equal in all directions); 0 for constant embeddings.
    """
    embedding = np.asarray(embedding, float)
    variance = np.linalg.svd(embedding - embedding.mean(axis=0), compute_uv=False) ** 2
    if variance.sum() <= 1e-12 * len(embedding):
        return 0.0
    share = variance / variance.sum()
    share = share[share > 0]
    return float(np.exp(-(share * np.log(share)).sum()))


def slot_spread(embedding, valid, *, fewest=8):
    """
    How much each slot's embedding changes from image to image.

    The root of the summed variance over images of the unit vectors in slot i: 0 if the slot says the same
    whatever it is shown (the shortcut of learned queries), 1 if its mean vanishes.

    Parameters
    ----------
    embedding : ndarray, shape (n_images, n_slots, d)
        Unit vectors.
    valid : ndarray of bool, shape (n_images, n_slots)
        Which slots hold an object.
    fewest : int
        Slots that hold an object in fewer images are left out.

    Returns
    -------
    ndarray, shape (k,)
        Spread of each slot that is left.
    """
    embedding, valid = np.asarray(embedding, float), np.asarray(valid, bool)
    count = valid.sum(axis=0)
    mean = (embedding * valid[..., None]).sum(axis=0) / np.maximum(count, 1)[:, None]
    variance = ((embedding - mean) ** 2).sum(axis=-1)
    variance = (variance * valid).sum(axis=0) / np.maximum(count - 1, 1)
    return np.sqrt(variance[count >= max(fewest, 2)])
