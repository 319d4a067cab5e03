# Licensed under a 3-clause BSD style license - see LICENSE
"""Cross-match by position and embedding, and the slots of two surveys."""

import astropy.units as u
import numpy as np
import pytest
from astropy.coordinates import SkyCoord
from astropy.table import QTable, Table
from astropy.utils.masked import Masked
from scipy.stats import multivariate_t

from jaisp.catalog import crossmatch, match_positions
from jaisp.exceptions import ConfigError


def unit(values):
    return values / np.linalg.norm(values, axis=-1, keepdims=True)


def test_recovers_shuffled_objects_and_leaves_strangers_alone():
    rng = np.random.default_rng(1)
    xy = rng.uniform(0, 60, (80, 2))
    order = rng.permutation(80)
    other = np.concatenate([xy[order] + rng.normal(0, 0.05, (80, 2)), rng.uniform(100, 160, (20, 2))])
    matches = match_positions(xy, other, error1=np.full(80, 0.05), error2=np.full(100, 0.05), area=3600)
    truth = np.empty(80, int)
    truth[order] = np.arange(80)
    right = truth[matches.first] == matches.second
    assert len(matches.first) >= 76
    assert right.mean() > 0.97
    assert (matches.second < 80).all()
    assert len(set(matches.second)) == len(matches.second)
    assert np.median(matches.probability) > 0.9


def test_the_embedding_decides_between_equal_neighbours():
    embedding = unit(np.eye(3, 8))
    matches = match_positions(
        [[0.0, 0.0]],
        [[-0.1, 0.0], [0.1, 0.0]],
        error1=[0.05],
        error2=[0.05, 0.05],
        embedding1=embedding[:1],
        embedding2=embedding[[1, 0]],
        similarity=(6.0, 0.4),
    )
    assert matches.second.tolist() == [1]
    assert matches.probability[0] > 0.9
    assert matches.n_candidates.tolist() == [2]
    alone = match_positions([[0.0, 0.0]], [[-0.1, 0.0], [0.1, 0.0]], error1=[0.05], error2=[0.05, 0.05])
    assert alone.probability[0] < 0.6
    assert np.isnan(alone.similarity[0])


def test_gate_and_empty_sets():
    far = match_positions([[0.0, 0.0]], [[0.6, 0.0]], error1=[0.02], error2=[0.02])
    assert len(far.first) == 0
    assert far.n_candidates.tolist() == [1]
    none = match_positions(np.zeros((0, 2)), [[0.0, 0.0]], error1=[], error2=[0.1])
    assert len(none.first) == 0


def test_tables_with_and_without_embeddings():
    rng = np.random.default_rng(2)
    ra, dec = 150 + rng.uniform(0, 0.02, 50), 2 + rng.uniform(0, 0.02, 50)
    first = QTable({"sky_centroid": SkyCoord(ra, dec, unit="deg")})
    second = QTable({"sky_centroid": SkyCoord(ra[::-1], dec[::-1] + 0.05 / 3600, unit="deg")})
    pairs = crossmatch(first, second)
    assert (pairs["index1"] + pairs["index2"] == 49).mean() > 0.95
    assert pairs["separation"].unit == u.mas
    np.testing.assert_allclose(pairs["separation"].value, 50, atol=1)
    first["embedding"] = unit(rng.normal(size=(50, 16)))
    second["embedding"] = first["embedding"][::-1]
    pairs = crossmatch(first, second)
    np.testing.assert_allclose(pairs["match_similarity"], 1, atol=1e-6)
    assert len(crossmatch(first[:0], second)) == 0


def test_plain_tables_have_errors_too():
    sky = SkyCoord([150.0, 150.0002], [2.0, 2.0], unit="deg")
    near = sky.spherical_offsets_by(0.25 * u.arcsec, 0 * u.arcsec)
    first = QTable({"sky_centroid": sky, "ra_err": [300, 10] * u.mas, "dec_err": [300, 10] * u.mas})
    second = QTable({"sky_centroid": near, "ra_err": [10, 10] * u.mas, "dec_err": [10, 10] * u.mas})
    expected = crossmatch(first, second)
    found = crossmatch(Table(first), Table(second))
    np.testing.assert_array_equal(found["match_probability"], expected["match_probability"])
    assert expected["index1"].tolist() == found["index1"].tolist() == [0]


def _patches(rng, n_patches, n, side=180.0):
    """Unrelated objects (a patch holds n of each) in patches far apart, at some declination."""
    ra, dec = rng.uniform(0, 360, n_patches), rng.uniform(-70, 70, n_patches)
    tables = []
    for _ in range(2):
        east, north = rng.uniform(0, side, (2, n_patches, n)) / 3600
        places = SkyCoord(
            (ra[:, None] + east / np.cos(np.radians(dec))[:, None]).ravel(),
            (dec[:, None] + north).ravel(),
            unit="deg",
        )
        tables.append(QTable({"sky_centroid": places}))
    return tables


def test_the_order_of_the_tables_does_not_matter():
    """A tenth of a sparse catalogue's objects are in a dense one; the others are not."""
    rng = np.random.default_rng(8)
    deep, sparse = rng.uniform(0, 600, (20000, 2)), rng.uniform(0, 600, (200, 2))
    sparse[:20] = deep[:20] + rng.normal(0, 0.14, (20, 2))
    tables = [
        QTable({"sky_centroid": SkyCoord(*(xy / 3600).T, unit="deg"), "number": np.arange(len(xy))})
        for xy in (deep, sparse)
    ]
    there, back = crossmatch(*tables), crossmatch(*tables[::-1])
    pairs = np.array([there["index1"], there["index2"]]), np.array([back["index2"], back["index1"]])
    assert {*map(tuple, pairs[0].T)} == {*map(tuple, pairs[1].T)}
    assert np.sort(there["match_probability"]) == pytest.approx(np.sort(back["match_probability"]), abs=0.05)
    right = there["index1"] == there["index2"]
    assert there["match_probability"].sum() == pytest.approx(right.sum(), abs=3 * np.sqrt(right.sum()))
    assert np.count_nonzero(there["match_probability"][~right] > 0.9) < 4


def test_strangers_are_as_few_in_patches_far_apart():
    rng = np.random.default_rng(6)
    number, probability = [], []
    for n_patches in (1, 5):
        pairs = crossmatch(*_patches(rng, n_patches, 900))
        number.append(len(pairs) / n_patches)
        probability.append(np.mean(pairs["match_probability"]))
    assert number[1] == pytest.approx(number[0], rel=0.25)
    assert probability[1] == pytest.approx(probability[0], abs=0.08)


def test_pairs_over_the_whole_sky_keep_their_separation():
    """Also at the poles and across 0 h, where right ascension and declination are no plane."""
    rng = np.random.default_rng(7)
    ra, dec = rng.uniform(0, 360, 2000), np.degrees(np.arcsin(rng.uniform(-1, 1, 2000)))
    ra[:4], dec[:4] = [0.0, 360.0, 10.0, 190.0], [20.0, -20.0, 89.999, -89.999]
    sky = SkyCoord(ra, dec, unit="deg")
    moved = sky.directional_offset_by(rng.uniform(0, 360, 2000) * u.deg, 0.2 * u.arcsec)
    pairs = crossmatch(QTable({"sky_centroid": sky}), QTable({"sky_centroid": moved}))
    assert pairs["index1"].tolist() == pairs["index2"].tolist() == list(range(2000))
    np.testing.assert_allclose(pairs["separation"].to_value(u.mas), 200, atol=0.01)


def test_a_table_without_positions():
    with pytest.raises(ConfigError, match="needs a sky_centroid column of SkyCoord; it has ra"):
        crossmatch(QTable({"ra": [1.0]}), QTable({"sky_centroid": SkyCoord([1], [1], unit="deg")}))


@pytest.mark.parametrize("frame", ["fk5", "galactic"])
def test_positions_in_any_frame(frame):
    sky = SkyCoord([150.0, 150.01, 150.02], [2.0, 2.0, 2.0], unit="deg")
    table, turned = QTable({"sky_centroid": sky}), QTable({"sky_centroid": sky.transform_to(frame)})
    for pairs in (crossmatch(table, turned), crossmatch(turned, table)):
        assert pairs["index1"].tolist() == pairs["index2"].tolist() == [0, 1, 2]
        assert pairs["separation"].max() < 0.01 * u.mas


def test_rows_without_a_position_match_nothing():
    table = QTable({"sky_centroid": SkyCoord([150.0, 150.01, 150.02], [2.0, 2.0, 2.0], unit="deg")})
    holed = QTable({"sky_centroid": SkyCoord([np.nan, 150.01, 150.02], [2.0, 2.0, np.nan], unit="deg")})
    sky = table["sky_centroid"]
    sky = SkyCoord(*(Masked(angle, mask=[True, False, True]) for angle in (sky.ra, sky.dec)))
    masked = QTable({"sky_centroid": sky})
    for other in (holed, masked):
        for pairs in (crossmatch(table, other), crossmatch(other, table)):
            assert pairs["index1"].tolist() == pairs["index2"].tolist() == [1]
        assert len(crossmatch(other[:1], table)) == 0


def test_angles_need_units_and_embeddings_one_length():
    sky = SkyCoord([150.0, 150.01], [2.0, 2.0], unit="deg")
    table = QTable({"sky_centroid": sky, "embedding": unit(np.ones((2, 8)))})
    bare = QTable({"sky_centroid": sky, "ra_err": [1.0, 1.0], "dec_err": [1.0, 1.0]})
    with pytest.raises(ConfigError, match="ra_err is without a unit; allowed: an angle"):
        crossmatch(table, bare)
    with pytest.raises(ConfigError, match="radius is without a unit; allowed: an angle"):
        crossmatch(table, table, radius=1.0)
    with pytest.raises(ConfigError, match="default_error is in 'pix'; allowed: an angle"):
        crossmatch(table, table, default_error=1 * u.pix)
    short = QTable({"sky_centroid": sky, "embedding": np.ones((2, 5))})
    with pytest.raises(ConfigError, match=r"shape \(8,\) and \(5,\) cannot be compared"):
        crossmatch(table, short)
    assert len(crossmatch(table, short, embedding=False)) == 2


def test_angles_that_cannot_be():
    table = QTable({"sky_centroid": SkyCoord([150.0], [2.0], unit="deg")})
    for options in ({"radius": -1 * u.arcsec}, {"radius": np.nan * u.arcsec}, {"default_error": 0 * u.mas}):
        with pytest.raises(ConfigError, match="must be larger than 0"):
            crossmatch(table, table, **options)
    with pytest.raises(ConfigError, match="column of SkyCoord"):
        crossmatch(table, QTable({"sky_centroid": [1.0] * u.deg}))


def test_trust_is_the_power_of_the_odds():
    def odds(trust):
        matches = match_positions(
            [[0.0, 0.0]], [[0.1, 0.0]], error1=[0.05], error2=[0.05], area=100.0, trust=trust
        )
        return matches.probability[0] / (1 - matches.probability[0])

    assert odds(0.5) == pytest.approx(np.sqrt(odds(1.0)))
    # Two-dimensional Student's t of scipy against one object in 100 square arcsec.
    shape = (2 * 0.05**2 + 0.03**2) * np.eye(2)
    expected = 100 * multivariate_t([0, 0], shape, df=4).pdf([0.1, 0.0])
    assert odds(1.0) == pytest.approx(expected)


def test_the_wings_of_the_errors_do_not_part_true_pairs():
    """Separations with the wings of Student's t: nearly all are matched, and a stranger there is not."""
    rng = np.random.default_rng(3)
    xy = np.stack(np.meshgrid(np.arange(0, 100, 5.0), np.arange(0, 100, 5.0)), axis=-1).reshape(-1, 2)
    sigma = np.full(len(xy), 0.05)
    away = rng.standard_t(4, xy.shape) * np.hypot(0.05, 0.05)
    matches = match_positions(xy, xy + away, error1=sigma, error2=sigma, systematic=0.0)
    assert (matches.first == matches.second).all()
    assert len(matches.first) > 0.99 * len(xy)
    lost = np.hypot(*away.T) ** 2 > 9.21 * 2 * 0.05**2  # what a gate at 99 % of chi-square would lose
    assert lost.mean() > 0.03
    strangers = match_positions(xy, xy + [0.9, 0.0], error1=sigma, error2=sigma, systematic=0.0)
    assert not len(strangers.first)


def test_two_matches_are_better_than_the_nearest_one():
    """One-to-one: an object gives its nearest partner up to another that has no other choice."""
    matches = match_positions(
        [[0.0, 0.0], [0.3, 0.0]],
        [[0.12, 0.0], [-0.2, 0.0]],
        error1=[0.1, 0.1],
        error2=[0.1, 0.1],
        area=1000.0,
    )
    assert matches.second.tolist() == [1, 0]
