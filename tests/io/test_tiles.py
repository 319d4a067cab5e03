# Licensed under a 3-clause BSD style license - see LICENSE
"""Tiles: every pixel owned once, arrays as the models take them."""

import pickle
import time
import tracemalloc

import numpy as np
import pytest
from astropy.wcs import WCS
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal

from jaisp.exceptions import ConfigError, ImageError
from jaisp.image import SurveyImage, resize_psf
from jaisp.io import align
from jaisp.io.tiles import Tile, make_tiles, owned, subwindows
from jaisp.surveys import EUCLID, RUBIN


class Masks:
    """As much of an image as the layout of tiles looks at."""

    def __init__(self, mask):
        self.mask, self.bands = {"X": mask}, ("X",)


class Field:
    """As much of a pair as the layout of tiles looks at."""

    def __init__(self, shape, euclid=None, rubin=None):
        self.shape = shape
        self.rubin = None if rubin is None else Masks(rubin)
        self.euclid = None if euclid is None else Masks(euclid)


def make_pair(rubin_shape=(120, 130), euclid_shape=(240, 260), *, bands=(("g", "i"), ("VIS", "H")), seed=1):
    rng = np.random.default_rng(seed)

    def image(survey, names, shape, scale):
        wcs = WCS(naxis=2)
        wcs.wcs.ctype = "RA---TAN", "DEC--TAN"
        wcs.wcs.crval = 53.0, -28.0
        wcs.wcs.cdelt = -scale / 3600, scale / 3600
        wcs.wcs.crpix = 0.5, 0.5  # the outer corners of both images coincide
        return SurveyImage(
            {name: rng.normal(10, 2, shape) for name in names},
            wcs,
            survey=survey,
            variance={name: rng.uniform(3, 5, shape) for name in names},
            mask={name: rng.random(shape) < 0.05 for name in names},
            psf={name: np.exp(-np.hypot(*np.mgrid[-15:16, -15:16]) / 2) for name in names},
        )

    rubin = image("rubin", bands[0], rubin_shape, 0.2) if bands[0] else None
    euclid = image("euclid", bands[1], euclid_shape, 0.1) if bands[1] else None
    return align(rubin, euclid)


layouts = st.tuples(st.integers(2, 100), st.integers(0, 30)).filter(lambda pair: pair[1] < pair[0] / 2)


@settings(max_examples=60, deadline=None)
@given(
    shape=st.tuples(st.integers(1, 200), st.integers(1, 200)),
    layout=layouts,
    density=st.sampled_from([0.0, 0.001, 0.5]),
    seed=st.integers(0, 99),
)
def test_every_valid_pixel_is_owned_once(shape, layout, density, seed):
    ny, nx = (2 * n for n in shape)
    size, halo = (2 * n for n in layout)
    if size < 4:
        return
    rng = np.random.default_rng(seed)
    euclid, rubin = rng.random((ny, nx)) >= density, rng.random(shape) >= density / 2
    field = Field((ny, nx), euclid, rubin)
    count, indices = np.zeros((ny, nx), int), []
    for tile in make_tiles(field, size=size, halo=halo):
        x0, x1, y0, y1 = tile.own
        assert x0 < x1
        assert y0 < y1
        count[y0:y1, x0:x1] += 1
        indices.append(tile.index)
        assert tile.x0 % 2 == tile.y0 % 2 == 0
        # The halo is shown wherever there is an image.
        assert tile.view == (max(x0 - halo, 0), min(x1 + halo, nx), max(y0 - halo, 0), min(y1 + halo, ny))
        assert tile.x0 <= tile.view[0]
        assert tile.view[1] <= tile.x0 + size
        assert tile.y0 <= tile.view[2]
        assert tile.view[3] <= tile.y0 + size
        assert not (euclid[y0:y1, x0:x1].all() and rubin[y0 // 2 : y1 // 2, x0 // 2 : x1 // 2].all())
    assert len(set(indices)) == len(indices)
    assert count.max(initial=0) <= 1
    valid = ~euclid | ~np.repeat(np.repeat(rubin, 2, axis=0), 2, axis=1)
    assert np.all(count[valid] == 1)


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 10**6), layout=layouts.filter(lambda pair: pair[0] > 1))
def test_every_position_is_owned_once(seed, layout):
    rng = np.random.default_rng(seed)
    ny, nx = 2 * rng.integers(1, 150, 2)
    tiles = list(
        make_tiles(Field((ny, nx), np.zeros((ny, nx), bool)), size=2 * layout[0], halo=2 * layout[1])
    )
    x, y = rng.uniform(-0.5, nx - 0.5, 300), rng.uniform(-0.5, ny - 0.5, 300)
    # Positions on and beside the edges between tiles, too.
    edges = np.array([tile.own[0] - 0.5 for tile in tiles])
    x = np.concatenate([x, edges, np.nextafter(edges, np.inf)])
    y = np.concatenate([y, np.full(2 * len(edges), ny / 2 - 0.5)])
    owners = sum(owned(x - tile.x0, y - tile.y0, tile).astype(int) for tile in tiles)
    assert_array_equal(owners, 1)
    outside = [owned(x - tile.x0 + nx, y - tile.y0, tile).any() for tile in tiles]
    assert not any(outside)


@given(
    st.tuples(st.integers(-50, 50), st.integers(1, 90), st.integers(-50, 50), st.integers(1, 90)).map(
        lambda w: (w[0], w[0] + w[1], w[2], w[2] + w[3])
    )
)
def test_subwindows_partition(window):
    x0, x1, y0, y1 = window
    count = np.zeros((y1 - y0, x1 - x0), int)
    parts = subwindows(window)
    for a, b, c, d in parts:
        assert a < b
        assert c < d
        count[c - y0 : d - y0, a - x0 : b - x0] += 1
    assert_array_equal(count, 1)
    assert len(parts) == 4 or 1 in count.shape


def test_layout_of_large_fields():
    mask = np.zeros((1800, 1800), bool)
    tiles = list(make_tiles(Field((1800, 1800), mask)))
    assert len(tiles) == 36
    assert [tile.index for tile in tiles] == list(range(36))
    assert {tile.size for tile in tiles} == {384}
    # One tile is enough where the field fits into one.
    assert len(list(make_tiles(Field((384, 384), mask[:384, :384])))) == 1


def test_arrays():
    pair = make_pair()
    (tile,) = pair.tiles()
    arrays = tile.arrays
    expected = {
        "rubin_snr": ((6, 192, 192), np.float32),
        "rubin_valid": ((6, 192, 192), bool),
        "rubin_noise": ((6,), np.float32),
        "rubin_psf": ((6, 25, 25), np.float32),
        "euclid_snr": ((4, 384, 384), np.float32),
        "euclid_valid": ((4, 384, 384), bool),
        "euclid_noise": ((4,), np.float32),
        "euclid_psf": ((4, 33, 33), np.float32),
    }
    assert {name: (value.shape, value.dtype) for name, value in arrays.items()} == expected
    for survey, image, binning in ((RUBIN, pair.rubin, 2), (EUCLID, pair.euclid, 1)):
        left, low = -tile.x0 // binning, -tile.y0 // binning
        ny, nx = image.shape
        where = np.s_[low : low + ny, left : left + nx]
        for k, band in enumerate(survey.band_names):
            snr, valid = (arrays[f"{survey.name}_{what}"][k] for what in ("snr", "valid"))
            noise, psf = (arrays[f"{survey.name}_{what}"][k] for what in ("noise", "psf"))
            if band not in image.bands:
                assert not any(np.any(value) for value in (snr, valid, noise, psf))
                continue
            sd = np.sqrt(image.source_variance(band))
            assert_allclose(snr[where], image.sky_subtracted(band) / sd, rtol=1e-5, atol=1e-6)
            assert_array_equal(valid[where], ~image.mask[band])
            assert valid.sum() == (~image.mask[band]).sum()
            assert not snr[~valid].any()
            assert noise == pytest.approx(np.median(sd[np.isfinite(sd)]), rel=1e-5)
            assert psf.sum() == pytest.approx(1, abs=1e-5)
            assert_array_equal(psf, resize_psf(image.psf[band], psf.shape[0]))


@pytest.mark.parametrize("missing", [0, 1])
def test_one_survey_alone(missing):
    bands = [("g", "i"), ("VIS", "H")]
    bands[missing] = ()
    (tile,) = make_pair((25, 25), (50, 50), bands=tuple(bands)).tiles()
    assert tile.own == (0, 50, 0, 50)
    assert tile.x0 == tile.y0 == -168
    names = ("rubin", "euclid")
    assert not any(tile.arrays[f"{names[missing]}_{what}"].any() for what in ("snr", "valid", "noise", "psf"))
    assert tile.arrays[f"{names[1 - missing]}_valid"].any()


def test_neighbours_show_the_same_pixels():
    pair = make_pair((150, 140), (300, 280))
    canvas = np.full((2, *pair.shape), np.nan, np.float32)
    tiles = list(pair.tiles(size=128, halo=16))
    assert len(tiles) == 9
    seen = np.zeros(pair.shape, int)
    for tile in tiles:
        x0, x1, y0, y1 = tile.view
        shown = tile.arrays["euclid_snr"][0, y0 - tile.y0 : y1 - tile.y0, x0 - tile.x0 : x1 - tile.x0]
        before = canvas[0, y0:y1, x0:x1]
        assert_array_equal(np.where(np.isnan(before), shown, before), shown)
        canvas[0, y0:y1, x0:x1] = shown
        seen[y0:y1, x0:x1] += 1
        rubin = tile.arrays["rubin_snr"][1]
        canvas[1, y0:y1, x0:x1] = rubin.repeat(2, 0).repeat(2, 1)[
            y0 - tile.y0 : y1 - tile.y0, x0 - tile.x0 : x1 - tile.x0
        ]
    assert seen.max() == 4
    for plane, image, band, step in ((0, pair.euclid, "VIS", 1), (1, pair.rubin, "g", 2)):
        expected = image.sky_subtracted(band) / np.sqrt(image.source_variance(band))
        assert_allclose(canvas[plane, ::step, ::step], expected, rtol=1e-5, atol=1e-6)


def test_split():
    pair = make_pair((192, 192), (384, 384))
    (tile,) = pair.tiles()
    parts = tile.split()
    assert [part.own for part in parts] == subwindows(tile.own)
    for part in parts:
        assert part.index == tile.index
        assert part.x0 % 2 == part.y0 % 2 == 0
        x0, x1, y0, y1 = part.view
        # Its quadrant and the halo, nothing else, and the same pixels as before.
        assert (x1 - x0, y1 - y0) == (224, 224)
        inner = np.s_[:, y0 - part.y0 : y1 - part.y0, x0 - part.x0 : x1 - part.x0]
        outer = np.s_[:, y0 - tile.y0 : y1 - tile.y0, x0 - tile.x0 : x1 - tile.x0]
        assert_array_equal(part.arrays["euclid_snr"][inner], tile.arrays["euclid_snr"][outer])
        assert part.arrays["euclid_valid"].sum() == part.arrays["euclid_valid"][inner].sum()
        assert abs((x0 + x1) / 2 - (part.x0 + 192)) <= 32
    smaller = parts[0].split()
    assert len(smaller) == 4
    assert smaller[0].own == (0, 96, 0, 96)
    # Its images stay behind when it is sent away.
    with pytest.raises(ImageError, match="has no images to split"):
        pickle.loads(pickle.dumps(tile)).split()


def test_empty_tiles_are_left_out():
    euclid, rubin = np.ones((600, 600), bool), np.ones((300, 300), bool)
    euclid[10, 20] = False
    (tile,) = make_tiles(Field((600, 600), euclid, rubin), size=200, halo=20)
    assert tile.index == 0
    rubin[299, 299] = False
    tiles = list(make_tiles(Field((600, 600), euclid, rubin), size=200, halo=20))
    assert [tile.index for tile in tiles] == [0, 15]


def test_a_tile_in_another_process():
    pair = make_pair()
    (tile,) = pair.tiles()
    sent = pickle.dumps(tile)
    assert len(sent) < 1.1 * sum(array.nbytes for array in tile.arrays.values())
    received = pickle.loads(sent)
    assert received.own == tile.own
    assert received.view == tile.view
    assert_array_equal(received.arrays["rubin_snr"], tile.arrays["rubin_snr"])


def test_memory_and_time_do_not_grow_with_the_field():
    pair = make_pair((400, 400), (800, 800))
    tiles = pair.tiles(size=128, halo=16)
    first = next(tiles)
    one = sum(array.nbytes for array in first.arrays.values())
    tracemalloc.start()
    start = time.perf_counter()
    count = sum(tile.arrays["rubin_valid"].any() for tile in tiles)
    seconds = time.perf_counter() - start
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert count == 63
    assert peak < 3 * one < pair.euclid.data["VIS"].nbytes
    assert seconds / count < 0.1  # 3 ms, but not on a busy machine


def test_repr():
    (tile,) = make_pair((25, 25), (50, 50)).tiles()
    assert repr(tile) == "<Tile 0: 384 px from (-168, -168), owns (0, 50, 0, 50)>"


@pytest.mark.parametrize(("size", "halo"), [(2, 0), (383, 32), (384, 31), (384, 192), (384, -2)])
def test_wrong_layouts(size, halo):
    with pytest.raises(ConfigError, match=f"size {size} with halo {halo} are not possible; allowed: even"):
        list(make_tiles(Field((50, 50), np.zeros((50, 50), bool)), size=size, halo=halo))


@pytest.mark.parametrize("own", [(-2, 10, 0, 10), (0, 0, 0, 10), (0, 10, 90, 102), (0, 100, 0, 10)])
def test_wrong_windows(own):
    with pytest.raises(ConfigError, match="cannot own the window"):
        Tile(Field((100, 100)), own, size=64, halo=4)
    assert Tile(Field((100, 100)), (0, 10, 0, 10), size=64, halo=4).view == (0, 14, 0, 14)
