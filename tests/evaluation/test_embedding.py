# Licensed under a 3-clause BSD style license - see LICENSE
"""Gauges of embeddings on constructed cases: what must be found, and what must not."""

import numpy as np
import pytest

from jaisp.evaluation import (
    Objects,
    effective_rank,
    match_by_similarity,
    match_on_sky,
    retrieval,
    right_partner,
    slot_spread,
    true_pairs,
)
from jaisp.exceptions import ConfigError

N_TILES, N, SIDE = 12, 40, 25.6


def unit(values):
    return values / np.linalg.norm(values, axis=-1, keepdims=True)


def two_surveys(rng, *, noise=0.0, error=0.03, dim=64, informative=True):
    """Both surveys see the same sources in another order; ``noise`` is that of the embeddings."""
    n = N_TILES * N
    xy, content = rng.uniform(0, SIDE, (n, 2)), unit(rng.normal(size=(n, dim)))
    tile = np.repeat(np.arange(N_TILES), N)
    surveys = []
    for _ in range(2):
        order = rng.permutation(n)
        own = content if informative else unit(rng.normal(size=(n, dim)))
        surveys.append(
            Objects(
                unit(own + noise * unit(rng.normal(size=(n, dim))))[order],
                (xy + rng.normal(0, error, (n, 2)))[order],
                np.full(n, error),
                tile[order],
                np.arange(n)[order],
            )
        )
    return surveys


@pytest.fixture
def rng():
    return np.random.default_rng(3)


class TestPairs:
    def test_true_pairs_are_those_of_one_source(self, rng):
        rubin, euclid = two_surveys(rng)
        rubin.source[rubin.source < 30] = -1
        pairs = true_pairs(rubin, euclid)
        assert len(pairs.first) == N_TILES * N - 30
        assert pairs.fraction == 1
        np.testing.assert_array_equal(rubin.source[pairs.first], euclid.source[pairs.second])
        np.testing.assert_allclose(pairs.similarity, 1, atol=1e-9)

    def test_matching_on_the_sky_needs_no_truth(self, rng):
        rubin, euclid = two_surveys(rng, noise=1.0)
        pairs = match_on_sky(rubin, euclid)
        right = rubin.source[pairs.first] == euclid.source[pairs.second]
        assert pairs.fraction > 0.97
        assert right.mean() > 0.99
        assert pairs.mean == pytest.approx(true_pairs(rubin, euclid).mean, abs=0.01)

    def test_shuffled_on_the_sky_is_chance(self, rng):
        """As many pairs as sources lie by chance within the gate, and no more alike than any two."""
        rubin, euclid = two_surveys(rng, error=0.1)
        pairs = [match_on_sky(rubin, euclid, shift=k, similarity_weight=0) for k in range(1, N_TILES)]
        gate2 = 9.21 * (2 * 0.1**2 + 0.06**2)
        expected = N * np.pi * gate2 / SIDE**2
        assert np.mean([each.fraction for each in pairs]) == pytest.approx(expected, rel=0.25)
        assert abs(np.concatenate([each.similarity for each in pairs]).mean()) < 0.03
        for each in pairs:
            assert not (rubin.tile[each.first] == euclid.tile[each.second]).any()

    def test_similarity_alone_is_high_for_vectors_with_nothing_in_common(self, rng):
        """The null that a mean matched similarity must be compared with (.29 for 100 in 64 dimensions)."""
        vectors = unit(rng.normal(size=(2, 100, 64)))
        rubin, euclid = (
            Objects(each, np.zeros((100, 2)), np.ones(100), np.zeros(100, int), np.arange(100))
            for each in vectors
        )
        assert match_by_similarity(rubin, euclid).mean == pytest.approx(0.29, abs=0.02)

    def test_similarity_alone_finds_equal_vectors(self, rng):
        rubin, euclid = two_surveys(rng)
        pairs = match_by_similarity(rubin, euclid)
        np.testing.assert_array_equal(rubin.source[pairs.first], euclid.source[pairs.second])
        assert match_by_similarity(rubin, euclid, shift=1).mean < 0.35

    def test_same_pairs_as_training(self, rng):
        """`match_on_sky` is the matching of the predictive loss."""
        torch = pytest.importorskip("torch")
        from jaisp.training.matching import match_surveys

        rubin, euclid = two_surveys(rng, noise=1.0, error=0.3)
        outputs = []
        for each in (rubin, euclid):
            index = np.argsort(each.tile, kind="stable").reshape(N_TILES, N)
            outputs.append(
                {
                    "position": torch.from_numpy(10 * each.xy[index]),
                    "error": torch.from_numpy(10 * np.repeat(each.error[index][..., None], 2, axis=-1)),
                    "projection": torch.from_numpy(each.embedding[index]),
                    "activity_logit": torch.ones(N_TILES, N),
                    "valid": torch.ones(N_TILES, N, dtype=torch.bool),
                    "index": index,
                }
            )
        tile, i, j = (part.numpy() for part in match_surveys(*outputs, similarity_weight=3.0))
        theirs = set(zip(outputs[0]["index"][tile, i], outputs[1]["index"][tile, j], strict=True))
        ours = match_on_sky(rubin, euclid)
        assert len(theirs) > 100
        assert set(zip(ours.first, ours.second, strict=True)) == theirs

    def test_nothing_to_pair(self, rng):
        rubin, euclid = two_surveys(rng)
        none = rubin.select(np.zeros(0, int))
        for match in (true_pairs, match_on_sky, match_by_similarity):
            assert np.isnan(match(none, euclid).mean)
            assert np.isnan(match(none, euclid).fraction)
            assert match(rubin, euclid.select(np.zeros(0, int))).fraction == 0


class TestRetrieval:
    def test_perfect_embeddings(self, rng):
        result = retrieval(*two_surveys(rng))
        assert result.top(1) == 1
        assert result.chance(1) == pytest.approx(1 / N)
        assert result.chance(5) == pytest.approx(5 / N)

    @pytest.mark.parametrize(("within", "candidates"), [("tile", N), ("sky", N_TILES * N)])
    def test_uninformative_embeddings_reach_chance(self, rng, within, candidates):
        result = retrieval(*two_surveys(rng, informative=False), within=within)
        assert (result.n_candidates == candidates).all()
        for k in (1, 5):
            error = np.sqrt(k / candidates / len(result.rank))
            assert result.top(k) == pytest.approx(k / candidates, abs=4 * error)

    def test_collapsed_embeddings_retrieve_nothing(self, rng):
        rubin, euclid = two_surveys(rng)
        rubin.embedding[:] = euclid.embedding[:] = np.eye(64)[0]
        assert retrieval(rubin, euclid).top(5) == 0

    def test_a_partner_across_the_edge_is_a_candidate(self, rng):
        rubin, euclid = two_surveys(rng)
        euclid.tile[euclid.source == 7] = 5
        result = retrieval(rubin, euclid)
        assert result.top(1) == 1
        assert sorted(np.unique(result.n_candidates)) == [N, N + 1]

    def test_by_hand(self):
        embedding = np.array([[1.0, 0.0], [0.8, 0.6], [0.0, 1.0]])
        asking = Objects(embedding[:1], np.zeros((1, 2)), np.ones(1), np.zeros(1, int), np.array([4]))
        target = Objects(embedding, np.zeros((3, 2)), np.ones(3), np.zeros(3, int), np.array([-1, 4, 9]))
        result = retrieval(asking, target)
        assert result.rank.tolist() == [1]
        assert (result.top(1), result.top(2)) == (0, 1)


class TestRightPartner:
    def test_the_embedding_helps_where_the_offset_misleads(self, rng):
        """Pairs 0.2 arcsec apart, shifted by 0.15: position goes astray, the embedding does not."""
        rubin, euclid = two_surveys(rng, error=0.01)
        partner = np.arange(N_TILES * N) ^ 1  # sources 2k and 2k + 1 are neighbours
        for each in (rubin, euclid):
            order = np.argsort(each.source)
            second = order[1::2]
            each.xy[second] = each.xy[order[0::2]] + [0.2, 0.0]
        assert (rubin.tile[np.argsort(rubin.source)] == rubin.tile[np.argsort(rubin.source)][partner]).all()
        options = {"offset": 0.15, "systematic": 0.1, "rng": 1}
        nearest = right_partner(rubin, euclid, how="nearest", **options).mean()
        both = right_partner(rubin, euclid, how="both", similarity=(10.0, 0.5), **options).mean()
        assert nearest < 0.9
        assert both > 0.97

    def test_without_offset_all_agree(self, rng):
        rubin, euclid = two_surveys(rng, error=0.01)
        for how in ("nearest", "position", "both"):
            assert right_partner(rubin, euclid, how=how).mean() > 0.98

    def test_an_object_left_alone_is_not_right(self, rng):
        rubin, euclid = two_surveys(rng, error=0.001)
        right = right_partner(rubin, euclid, offset=0.9, systematic=0.01)
        assert not right.any()


class TestRankAndSpread:
    def test_effective_rank_of_known_spectra(self, rng):
        basis = np.linalg.qr(rng.normal(size=(64, 64)))[0]
        values = rng.normal(size=(4000, 64))
        assert effective_rank(values[:, :1] * basis[:1]) == pytest.approx(1)
        assert effective_rank(values[:, :12] @ basis[:12]) == pytest.approx(12, rel=0.01)
        assert effective_rank(values) == pytest.approx(64, rel=0.02)
        assert effective_rank(np.ones((50, 64))) == 0
        # two directions with shares 0.9 and 0.1
        share = np.array([0.9, 0.1])
        line = np.concatenate([np.diag(np.sqrt(share)), -np.diag(np.sqrt(share))])
        assert effective_rank(line) == pytest.approx(np.exp(-(share * np.log(share)).sum()))

    def test_learned_queries_have_no_spread(self, rng):
        """A hundred constants pass any test pooled over slots; slot by slot they do not."""
        valid = np.ones((30, 100), bool)
        shortcut = np.broadcast_to(unit(rng.normal(size=(100, 64))), (30, 100, 64))
        assert effective_rank(shortcut.reshape(-1, 64)) > 40
        np.testing.assert_allclose(slot_spread(shortcut, valid), 0, atol=1e-9)
        healthy = unit(rng.normal(size=(30, 100, 64)))
        np.testing.assert_allclose(slot_spread(healthy, valid), 1, atol=0.05)

    def test_spread_by_hand(self):
        embedding = np.zeros((4, 2, 2))
        embedding[:, 0] = [[1, 0], [0, 1], [1, 0], [0, 1]]
        valid = np.array([[True, True]] * 3 + [[True, False]])
        # unit vectors with a mean of length sqrt(0.5), unbiased: sqrt(4 / 3 * (1 - 0.5))
        assert slot_spread(embedding, valid, fewest=4) == pytest.approx([np.sqrt(2 / 3)])


def test_mistakes(rng):
    rubin, euclid = two_surveys(rng)
    with pytest.raises(ConfigError, match=r"needed: embedding \(n, d\), xy \(n, 2\)"):
        Objects(rubin.embedding, rubin.xy[:-1], rubin.error, rubin.tile, rubin.source)
    with pytest.raises(ConfigError, match="allowed: 'tile', 'sky'"):
        retrieval(rubin, euclid, within="field")
    with pytest.raises(ConfigError, match="allowed: 'nearest', 'position', 'both'"):
        right_partner(rubin, euclid, how="embedding")
