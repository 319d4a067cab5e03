# Licensed under a 3-clause BSD style license - see LICENSE
"""Gauges of the embeddings on cases made so that their values are known."""

import numpy as np
import pytest
from astropy.table import QTable

from jaisp.evaluation import Field, object_gauges, partners, peer_partners, tile_gauges

from .helpers import sky

N = 6
PLACES = sky([0.0, 3.0, 6.0, 9.0, 12.0, 15.0])


def truth(rubin_snr=50.0):
    return QTable(
        {
            "sky_centroid": PLACES,
            "snr": np.full(N, 70.0),
            "rubin_snr": np.broadcast_to(rubin_snr, N).astype(float),
            "euclid_snr": np.full(N, 50.0),
        }
    )


def field(**options):
    return Field("rubin", "euclid", truth(**options))


class Slots:
    """What `detect` gives for one survey."""

    def __init__(self, embedding, activity_logit, x):
        self.embedding, self.activity_logit = np.asarray(embedding, float), np.asarray(activity_logit, float)
        self.x = self.y = np.asarray(x)

    def select(self, mask):
        return Slots(self.embedding[mask], self.activity_logit[mask], self.x[mask])


class Pair:
    """A frame in which pixel k is the place of source k."""

    class wcs:  # noqa: N801
        @staticmethod
        def pixel_to_world(x, y):
            return PLACES[np.asarray(x, int)]


@pytest.fixture
def looked(monkeypatch):
    """Let a model be the slots that it finds, of each survey."""
    monkeypatch.setattr(partners, "align", lambda rubin, euclid: Pair)
    monkeypatch.setattr(partners, "detect", lambda model, pair: model)


def slots(embedding, active=True):
    return Slots(embedding, np.where(np.broadcast_to(active, len(embedding)), 1.0, -1.0), np.arange(N))


def test_embeddings_that_name_their_object(looked):
    model = {"rubin": slots(np.eye(N)), "euclid": slots(np.eye(N))}
    (row,) = object_gauges({"one": model}, [field()])
    assert row["finder"] == "one"
    assert row["n_pairs"] == N
    assert row["separation"] == pytest.approx(1)
    assert row["chance"] == pytest.approx(1 / N)
    assert row["retrieval"] == row["nearest"] == row["partner"] == 1


def test_embeddings_that_say_nothing(looked):
    same = np.tile(np.eye(N)[0], (N, 1))
    (row,) = object_gauges({"one": {"rubin": slots(same), "euclid": slots(same)}}, [field()])
    assert row["separation"] == pytest.approx(0)
    assert row["retrieval"] == 0  # equal similarities are no answer
    assert row["nearest"] == 1  # position still knows


def test_embeddings_that_name_another_object(looked):
    model = {"rubin": slots(np.eye(N)), "euclid": slots(np.roll(np.eye(N), 1, axis=0))}
    (row,) = object_gauges({"one": model}, [field()])
    assert row["separation"] == pytest.approx(0 - N / (N * (N - 1)))
    assert row["retrieval"] == 0


def test_unmatched_similarity_is_of_one_field(looked):
    """Two fields with the same embeddings: other objects are those of the same field only."""
    model = {"rubin": slots(np.eye(N)), "euclid": slots(np.eye(N))}
    (row,) = object_gauges({"one": model}, [field(), field()])
    assert row["n_pairs"] == 2 * N
    assert row["separation"] == pytest.approx(1)
    assert row["chance"] == pytest.approx(1 / N)


def test_inactive_slots_and_faint_sources_are_not_asked_for(looked):
    active = np.arange(N) != 2
    model = {"rubin": slots(np.eye(N), active), "euclid": slots(np.eye(N))}
    faint = np.where(np.arange(N) < 1, 9.0, 50.0)  # below 10 in Rubin
    (row,) = object_gauges({"one": model}, [field(rubin_snr=faint)])
    assert row["n_pairs"] == N - 2


class Finder:
    """A peer whose catalogue of each survey is given."""

    def __init__(self, **tables):
        self.tables = tables

    def __call__(self, *, threshold, **images):
        ((survey, image),) = images.items()
        assert survey == image
        return self.tables[survey]


def catalog(x, snr=20.0):
    return QTable({"sky_centroid": sky(x), "snr": np.broadcast_to(snr, len(x)).astype(float)})


def test_peers_are_joined_by_position():
    exact = np.arange(0.0, 3 * N, 3.0)
    near = exact + 0.05
    peers = {
        "good": (Finder(rubin=catalog(near), euclid=catalog(exact)), {"threshold": 1}),
        "faint": (Finder(rubin=catalog(near, snr=4.0), euclid=catalog(exact)), {"threshold": 1}),
        "far": (Finder(rubin=catalog(exact + 0.6), euclid=catalog(exact)), {"threshold": 1}),
    }
    rows = {row["finder"]: row for row in peer_partners(peers, [field()])}
    assert rows["good"]["n_pairs"] == N
    assert rows["good"]["nearest"] == rows["good"]["partner"] == 1
    assert np.isnan(rows["good"]["separation"])
    assert np.isnan(rows["good"]["retrieval"])
    for name in ("faint", "far"):  # S/N below 5; beyond .5 arcsec of every source
        assert rows[name]["n_pairs"] == 0
        assert np.isnan(rows[name]["partner"])


class Tiles:
    """A model whose vectors of tiles are given."""

    def __init__(self, rubin, euclid, coverage):
        self.table = QTable(
            {
                "rubin_embedding": np.asarray(rubin, float),
                "euclid_embedding": np.asarray(euclid, float),
                "rubin_coverage": np.asarray(coverage, float),
                "euclid_coverage": np.ones(len(coverage)),
            }
        )

    def embed(self, rubin, euclid):
        return self.table


def test_gauges_of_tiles():
    row = tile_gauges("tiles", Tiles(np.eye(4), np.eye(4), [1, 1, 1, 1]), [field()])
    assert (row["unit"], row["n_pairs"], row["retrieval"], row["chance"]) == ("tile", 4, 1.0, 0.25)
    assert row["separation"] == pytest.approx(1)
    cosines = np.array([[0.8, 0.6, 0], [0, 0.6, 0.8], [0.6, 0.8, 0]])
    row = tile_gauges("tiles", Tiles(np.eye(3), cosines, [1, 1, 1]), [field()])
    own, every = cosines.diagonal(), cosines.sum()
    assert row["separation"] == pytest.approx(own.mean() - (every - own.sum()) / 6)
    assert row["retrieval"] == pytest.approx(1 / 3)


def test_tiles_that_a_survey_hardly_covers_are_left_out():
    vectors = np.eye(4)
    row = tile_gauges("tiles", Tiles(vectors, vectors[[1, 0, 2, 3]], [0.5, 0.89, 0.91, 1]), [field()])
    assert (row["n_pairs"], row["retrieval"]) == (2, 1.0)
    vectors[0] = np.nan  # what a tile without Rubin has
    assert tile_gauges("tiles", Tiles(vectors, np.eye(4), [0, 1, 1, 1]), [field()])["retrieval"] == 1
    assert tile_gauges("tiles", Tiles(np.eye(4), np.eye(4), [0] * 4), [field()])["n_pairs"] == 0


def test_positions_count_for_the_objects_of_a_survey_in_arcsec():
    found = partners._objects(sky([0.1, 3.0]), np.eye(2), 7, truth(), survey="euclid", first=1_000_000)
    np.testing.assert_allclose(found.xy, [[0.1, 0], [3, 0]], atol=1e-3)
    assert found.source.tolist() == [1_000_000, 1_000_001]
    assert found.tile.tolist() == [7, 7]
