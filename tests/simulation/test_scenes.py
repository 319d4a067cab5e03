# Licensed under a 3-clause BSD style license - see LICENSE
from dataclasses import replace

import numpy as np
import pytest
from scipy.signal import fftconvolve
from scipy.spatial import cKDTree

from jaisp.exceptions import ConfigError, FileError
from jaisp.simulation import (
    NoiseBank,
    SceneBank,
    SceneConfig,
    Sources,
    draw_sources,
    draw_tile,
    make_scene,
    make_scenes,
)
from jaisp.simulation.scenes import render_scene

CONFIG = SceneConfig(size=128, psf_sets=2, psf_error=0.0)


@pytest.fixture(scope="module")
def bank():
    return NoiseBank(seed=1, size=1024)


def one_source(
    x, y, *, flux=1e4, bulge_radius=0.0, disc_radius=0.0, bulge_share=0.0, e1=0.0, e2=0.0, config=CONFIG
):
    """A single source at a position on the 0.1" grid."""
    margin = (config.grid - 2 * config.size) / 2 * 0.05
    star = disc_radius == 0
    total = np.full((1, 10), flux)
    share = 1.0 if star else bulge_share
    none = np.zeros(0)
    return Sources(
        x=np.array([(x + 0.5) * 0.1 + margin]),
        y=np.array([(y + 0.5) * 0.1 + margin]),
        bulge_flux=total * share,
        disc_flux=total * (1 - share),
        knot_flux=total * 0,
        bulge_radius=np.array([bulge_radius]),
        disc_radius=np.array([disc_radius]),
        half_light_radius=np.array([disc_radius]),
        e1=np.array([e1]),
        e2=np.array([e2]),
        is_star=np.array([star]),
        redshift=np.zeros(1),
        knot_parent=none.astype(int),
        knot_dx=none,
        knot_dy=none,
        knot_weight=none,
    )


def centroid(image, weight_centre):
    """Centroid within 2 arcsec, iterated with a Gaussian window (unbiased for a symmetric source)."""
    image = image.astype(float)
    rows, columns = np.indices(image.shape)
    x, y = weight_centre
    for _ in range(60):
        window = image * np.exp(-0.5 * ((columns - x) ** 2 + (rows - y) ** 2) / 4.0**2)
        x += 2 * ((window * columns).sum() / window.sum() - x)
        y += 2 * ((window * rows).sum() / window.sum() - y)
    return x, y


@pytest.mark.parametrize(
    "shape",
    [
        {},
        {"disc_radius": 0.4, "e1": 0.3, "e2": -0.2},
        {"disc_radius": 0.6, "bulge_radius": 0.3, "bulge_share": 0.5, "e2": 0.3},
    ],
)
def test_flux_is_conserved(shape):
    scene = render_scene(np.random.default_rng(1), one_source(63.3, 64.8, **shape), CONFIG)
    # The PSF and the profile reach beyond the scene: compare with the whole periodic grid by growing it.
    wide = SceneConfig(size=512, psf_sets=2, psf_error=0.0)
    source = one_source(255.3, 256.8, config=wide, **shape)
    scene = render_scene(np.random.default_rng(1), source, wide)
    for image in (*scene.rubin, *scene.euclid):
        assert image.astype(float).sum() == pytest.approx(1e4, rel=0.01)


def test_oversampled_drawing_conserves_flux():
    from jaisp.simulation import _render

    for kind in (1, 4):
        images = np.zeros((1, 600, 600), np.float32)
        _render.add_galaxy(images, 300.3, 299.6, 9.0, 0.2, 0.1, np.array([1.0]), kind, reach=290)
        assert images.sum() == pytest.approx(1.0, rel=0.005)
    images = np.zeros((1, 64, 64), np.float32)
    _render.add_points(images, np.array([30.4]), np.array([31.7]), np.ones((1, 1)))
    assert images.sum() == pytest.approx(1.0, rel=1e-5)


@pytest.mark.parametrize("kind", [1, 4])
def test_mixtures_follow_the_sersic_curve_of_growth(kind):
    from scipy.special import gammainc, gammaincinv

    from jaisp.simulation._render import sersic_mixture

    amplitude, variance = sersic_mixture(kind)
    radius = np.array([0.1, 0.3, 0.5, 1.0, 1.5, 2.0, 3.0])
    growth = (1 - np.exp(-0.5 * radius[:, None] ** 2 / variance)) @ amplitude
    scale = gammaincinv(2 * kind, 0.5)
    top = gammainc(2 * kind, scale * 8 ** (1 / kind))
    assert growth == pytest.approx(gammainc(2 * kind, scale * radius ** (1 / kind)) / top, abs=0.03)


def test_isolated_star_lies_where_truth_says():
    scene = render_scene(np.random.default_rng(5), one_source(61.27, 66.81), CONFIG)
    assert (scene.x[0], scene.y[0]) == pytest.approx((61.27, 66.81), abs=1e-4)
    # Aberrations and ellipticity move a centroid: compare against that of the PSF itself.
    for psf, image, to_grid, origin, tolerance in (
        (scene.euclid_psf, scene.euclid, 1.0, 0.0, 0.01),
        (scene.rubin_psf, scene.rubin, 2.0, 0.5, 0.01),
    ):
        for band in range(len(image)):
            half = psf.shape[-1] // 2
            bias_x, bias_y = np.subtract(centroid(psf[band], (half, half)), half)
            shift = scene.offset / 0.1 / to_grid if to_grid == 2 else np.zeros(2)
            x, y = (61.27 - origin) / to_grid + shift[0], (66.81 - origin) / to_grid + shift[1]
            found = centroid(image[band], (x, y))
            assert found[0] - bias_x == pytest.approx(x, abs=tolerance)
            assert found[1] - bias_y == pytest.approx(y, abs=tolerance)


@pytest.mark.parametrize(
    "shape",
    [
        {},
        {"disc_radius": 0.15, "e1": 0.2},
        {"disc_radius": 0.5, "bulge_radius": 0.2, "bulge_share": 0.4, "e2": -0.3},
    ],
)
def test_norm_is_that_of_the_drawn_profile(shape):
    source = one_source(63.6, 64.2, **shape)
    scene = render_scene(np.random.default_rng(8), source, CONFIG)
    images = [*scene.rubin, *scene.euclid]
    for band, image in enumerate(images):
        brute = np.sqrt(((image.astype(float) / 1e4) ** 2).sum())
        assert scene.norm[0, band] == pytest.approx(brute, rel=0.02)


def test_given_psf_is_the_profile_of_a_star():
    scene = render_scene(
        np.random.default_rng(3),
        one_source(64.0, 63.0, flux=2e4),
        SceneConfig(size=128, psf_sets=2, psf_error=0, offset=0),
    )
    for band in range(4):
        cut = scene.euclid[band, 63 - 16 : 63 + 17, 64 - 16 : 64 + 17].astype(float)
        assert cut / cut.sum() == pytest.approx(
            scene.euclid_psf[band], abs=0.015 * float(scene.euclid_psf[band].max())
        )
    assert scene.rubin_psf.sum(axis=(1, 2)) == pytest.approx(np.ones(6), abs=1e-5)


def test_matched_filtered_noise_has_unit_variance(bank):
    scene = make_scene(np.random.default_rng(2), CONFIG)
    for name, psf in (
        ("rubin", scene.rubin_psf[2]),
        ("vis", scene.euclid_psf[0]),
        ("nisp", scene.euclid_psf[2]),
    ):
        rng = np.random.default_rng(4)
        filtered = []
        for _ in range(8):
            noise = bank.cut(rng, name, 512, psf)
            filtered.append(fftconvolve(noise, psf[::-1, ::-1], mode="valid") / np.sqrt((psf**2).sum()))
        assert np.std(filtered) == pytest.approx(1.0, abs=0.05)


def lag_one(field):
    return (field[:, 1:] * field[:, :-1]).mean() / (field**2).mean()


def test_noise_is_correlated_as_in_the_surveys(bank):
    assert [lag_one(f) for f in bank.fields["rubin"]] == pytest.approx([0.0, 0.28, 0.44, 0.68, 0.8], abs=0.06)
    assert [lag_one(f) for f in bank.fields["vis"]] == pytest.approx([0.0, 0.22, 0.40], abs=0.05)
    assert all(0.78 < lag_one(f) < 0.92 for f in bank.fields["nisp"])


def test_tile_is_the_contract(bank):
    config = SceneConfig(size=128, psf_sets=2)
    scene = make_scene(np.random.default_rng(6), config)
    arrays, truth = draw_tile(scene, np.random.default_rng(7), bank)
    shapes = {name: (array.shape, array.dtype.name) for name, array in arrays.items()}
    assert shapes == {
        "rubin_snr": ((6, 64, 64), "float32"),
        "rubin_valid": ((6, 64, 64), "bool"),
        "rubin_noise": ((6,), "float32"),
        "rubin_psf": ((6, 25, 25), "float32"),
        "euclid_snr": ((4, 128, 128), "float32"),
        "euclid_valid": ((4, 128, 128), "bool"),
        "euclid_noise": ((4,), "float32"),
        "euclid_psf": ((4, 33, 33), "float32"),
    }
    assert truth["snr"] == pytest.approx(np.hypot(truth["rubin_snr"], truth["euclid_snr"]), rel=1e-4)
    assert truth["band_snr"].shape == truth["flux"].shape == (len(scene), 10)


def test_flips_carry_everything_along(bank):
    source = one_source(40.0, 80.5, flux=5e4, disc_radius=0.5, e1=0.3, e2=0.35)
    scene = render_scene(np.random.default_rng(9), source, SceneConfig(size=128, psf_sets=2, offset=0.0))
    seen = set()
    for seed in range(60):
        arrays, truth = draw_tile(scene, np.random.default_rng(seed), bank)
        image = np.clip(arrays["euclid_snr"][0], 5, None) - 5
        if not arrays["euclid_valid"].all() or image.sum() == 0:
            continue
        x, y = centroid(image, (truth["x"][0], truth["y"][0]))
        assert (x, y) == pytest.approx((truth["x"][0], truth["y"][0]), abs=0.5)
        rows, columns = np.indices(image.shape)
        dx, dy = columns - x, rows - y
        assert np.sign((image * (dx**2 - dy**2)).sum()) == np.sign(truth["e1"][0])
        assert np.sign((image * dx * dy).sum()) == np.sign(truth["e2"][0])
        seen.add((round(float(truth["x"][0])), round(float(truth["y"][0])), bool(truth["e2"][0] > 0)))
    assert len(seen) == 8


def test_seeds_reproduce(bank, tmp_path):
    config = SceneConfig(size=64, psf_sets=2)
    first, second = (make_scenes(2, config, seed=3) for _ in range(2))
    assert all(np.array_equal(first.arrays[k], second.arrays[k]) for k in first.arrays)
    one, two = (draw_tile(first[1], np.random.default_rng(1), bank) for _ in range(2))
    assert all(np.array_equal(one[0][k], two[0][k]) for k in one[0])
    first.save(tmp_path / "bank")
    loaded = SceneBank.load(tmp_path / "bank")
    assert loaded.config == config
    assert len(loaded) == 2
    assert np.array_equal(loaded[-1].rubin, first[1].rubin)
    assert np.array_equal(loaded[1].flux, first[1].flux)


def test_banks_are_written_whole_or_not_at_all(tmp_path, monkeypatch):
    config = SceneConfig(size=64, psf_sets=2)
    bank = make_scenes(2, config, seed=3)
    (tmp_path / "bank").mkdir()
    (tmp_path / "bank" / "notes.txt").write_text("mine")
    bank.save(tmp_path / "bank")
    with monkeypatch.context() as patch:
        patch.setattr(np, "save", lambda *_: (_ for _ in ()).throw(OSError(28, "No space left")))
        for name in ("bank", "other"):
            with pytest.raises(OSError, match="No space left"):
                SceneBank(bank.arrays, replace(config, density=50.0)).save(tmp_path / name)
    assert [path.name for path in tmp_path.iterdir()] == ["bank"]
    assert SceneBank.load(tmp_path / "bank").config == config
    mapped = SceneBank.load(tmp_path / "bank")
    half = {**bank.arrays, "euclid": bank.arrays["euclid"][:, :, :32] * 0}
    SceneBank(half, replace(config, density=50.0)).save(tmp_path / "bank")
    assert SceneBank.load(tmp_path / "bank").config.density == 50
    # Who has mapped the old ones keeps them, and other files stay.
    assert np.array_equal(mapped[0].euclid, bank[0].euclid)
    assert (tmp_path / "bank" / "notes.txt").read_text() == "mine"


def test_user_mistakes():
    with pytest.raises(ConfigError, match="multiple of 4"):
        SceneConfig(size=130)
    with pytest.raises(ConfigError, match="did you mean 'density'"):
        SceneConfig.from_dict({"densty": 3})
    with pytest.raises(FileError, match="no scenes"):
        SceneBank.load("nowhere")


def test_population_counts_and_selection():
    sources = draw_sources(np.random.default_rng(0), 20.0, companions=0.0, large=0.0)
    vis = 31.4 - 2.5 * np.log10(sources.flux[:, 6])
    assert (vis < 26.5).sum() / 20 == pytest.approx(100, rel=0.1)
    assert 0.03 < sources.is_star[vis < 26.5].mean() < 0.13
    assert np.isfinite(sources.flux).all()
    assert (sources.flux > 0).all()
    near_24 = (np.abs(vis - 24) < 0.5) & ~sources.is_star
    assert np.median(sources.half_light_radius[near_24]) == pytest.approx(0.45, rel=0.1)
    some = sources.select(sources.x > 100)
    assert len(some) == (sources.x > 100).sum()
    assert np.bincount(some.knot_parent, some.knot_weight).max() == pytest.approx(1.0)


def test_compact_sources_lie_everywhere_and_around_galaxies():
    rng = np.random.default_rng(0)
    sources = draw_sources(rng, 20.0, compact=10.0, companions=0.0, large=0.0, star_fraction=0.0)
    smallest = ~sources.is_star & (
        sources.half_light_radius < 0.05
    )  # half of the compact galaxies; no others
    compact = sources.is_star | smallest
    vis = 31.4 - 2.5 * np.log10(sources.flux[:, 6])
    assert (compact & (vis < 26.5)).sum() == pytest.approx(150, rel=0.25)
    assert smallest.sum() / sources.is_star.sum() == pytest.approx(0.5, abs=0.15)
    assert not compact[sources.knot_parent].any()
    hosts = np.flatnonzero(~compact & (vis < 24))
    tree = cKDTree(np.stack([sources.x, sources.y], axis=-1)[hosts])
    distance, _ = tree.query(np.stack([sources.x, sources.y], axis=-1))
    # By chance alone an eighth have so bright a galaxy within 2 arcsec.
    assert (distance[compact] < 2).mean() > 0.3
    assert (distance[~compact & (vis > 24.5)] < 2).mean() < 0.2
    # The brighter a host, the more.
    bright, faint = (
        cKDTree(np.stack([sources.x, sources.y], axis=-1)[hosts[(vis[hosts] > low) & (vis[hosts] < low + 2)]])
        for low in (19, 21.5)
    )
    places = np.stack([sources.x, sources.y], axis=-1)[compact]
    around = [sum(map(len, tree.query_ball_point(places, 4.0))) / tree.n for tree in (bright, faint)]
    assert around[0] > 1.3 * around[1]


def test_without_compact_sources_a_seed_gives_the_sky_that_it_always_gave():
    plain, more = (draw_sources(np.random.default_rng(7), 2.0, compact=compact) for compact in (0.0, 20.0))
    assert len(more) > len(plain)
    np.testing.assert_array_equal(more.x[: len(plain)], plain.x)


def test_thin_discs_are_flat_and_the_sky_without_them_is_what_it_always_was():
    thin, none, plain = (
        draw_sources(np.random.default_rng(3), 4.0, star_fraction=0.1, **options)
        for options in ({"thin": 1.0}, {"thin": 0.0}, {})
    )
    np.testing.assert_array_equal(none.e1, plain.e1)
    ellipticity = np.hypot(thin.e1, thin.e2)[~thin.is_star]
    ratio = (1 - ellipticity) / (1 + ellipticity)
    assert 0.119 < ratio.min() < 0.13
    assert 0.29 < ratio.max() < 0.301
    assert np.hypot(thin.e1, thin.e2)[thin.is_star].max() == 0


def test_unusual_scenes_are_next_to_empty_or_crowded_and_hold_any_share_of_stars():
    config = replace(CONFIG, density=500.0, faint_limit=25.5, compact=0.0)
    usual, unusual = (
        [make_scene(np.random.default_rng(k), replace(config, unusual=share)) for k in range(24)]
        for share in (0.0, 1.0)
    )
    numbers, more = (np.array([len(scene) for scene in scenes]) for scenes in (usual, unusual))
    assert more.min() < 0.5 * numbers.min()
    assert more.max() > 2 * numbers.max()
    usual_stars, stars = (max(s.is_star.mean() for s in scenes if len(s) > 9) for scenes in (usual, unusual))
    assert stars > 0.5 > usual_stars


def test_masks_of_saturated_stars_are_narrow_and_wide(bank):
    star = render_scene(np.random.default_rng(1), one_source(64, 64, flux=3e6), CONFIG)
    areas = []
    for seed in range(60):
        arrays, _ = draw_tile(star, np.random.default_rng(seed), bank)
        # Defects may lie anywhere; the middle of the mask of the star is its own.
        areas.append(np.count_nonzero(~arrays["euclid_valid"][0, 34:95, 34:95]))
    masked = np.array([area for area in areas if area > 20])
    assert len(masked) > 15
    assert masked.max() > 4 * masked.min()


def test_some_tiles_show_a_small_cutout_of_both_surveys(bank):
    """The same part of the sky; what lies outside is not seen, and what is drawn does not depend on it."""
    scene = render_scene(np.random.default_rng(1), one_source(64, 64, flux=3e3), CONFIG)
    seen = []
    for seed in range(60):
        whole, _ = draw_tile(scene, np.random.default_rng(seed), bank)
        part, truth = draw_tile(scene, np.random.default_rng(seed), bank, cutouts=0.5)
        shown = [part[f"{name}_valid"].mean() / whole[f"{name}_valid"].mean() for name in ("rubin", "euclid")]
        if shown == [1, 1]:
            continue
        assert 0.03 < shown[1] < 0.7
        if whole["rubin_valid"].all() and whole["euclid_valid"].all():
            assert shown[0] == pytest.approx(shown[1], abs=0.02)
        for name in ("rubin", "euclid"):
            valid = part[f"{name}_valid"]
            assert whole[f"{name}_valid"][valid].all()
            np.testing.assert_array_equal(
                part[f"{name}_snr"], np.where(valid, whole[f"{name}_snr"], 0), err_msg=name
            )
        middle = part["euclid_valid"][0, 64, 64]
        assert (truth["euclid_snr"][0] > 0) or not middle
        seen.append(middle)
    assert 15 < len(seen) < 45
    assert 0 < sum(seen) < len(seen)
