# Licensed under a 3-clause BSD style license - see LICENSE
import sys

import numpy as np
import pytest
from astropy.coordinates import SkyCoord

from jaisp.exceptions import ConfigError, MissingDependencyError
from jaisp.simulation import simulate_field
from jaisp.simulation.population import Sources

galsim = pytest.importorskip("galsim", reason="GalSim draws the fields")


def grid_of_sources(n_side, spacing, *, flux=1e5, kind="star", flat=True):
    """Isolated sources on a grid, ``spacing`` arcsec apart, at odd fractions of a pixel."""
    steps = spacing * (0.5 + np.arange(n_side))
    x, y = (value.ravel() for value in np.meshgrid(steps, steps))
    n = len(x)
    rng = np.random.default_rng(5)
    x, y = x + rng.uniform(-0.1, 0.1, n), y + rng.uniform(-0.1, 0.1, n)
    total = np.full((n, 10), flux)
    star = np.full(n, kind == "star")
    none = np.zeros(0)
    return Sources(
        x=x,
        y=y,
        bulge_flux=total if kind == "star" else 0.3 * total,
        disc_flux=0 * total if kind == "star" else 0.7 * total,
        knot_flux=0 * total,
        bulge_radius=np.full(n, 0.0 if kind == "star" else 0.15),
        disc_radius=np.full(n, 0.0 if kind == "star" else 0.3),
        half_light_radius=np.full(n, 0.0 if kind == "star" else 0.25),
        e1=np.full(n, 0.0 if kind == "star" else 0.2),
        e2=np.full(n, 0.0 if kind == "star" else -0.1),
        is_star=star,
        redshift=np.zeros(n),
        knot_parent=none.astype(int),
        knot_dx=none,
        knot_dy=none,
        knot_weight=none,
    )


@pytest.fixture(scope="module")
def stars():
    return simulate_field(
        2,
        size_arcmin=1.0,
        depth="deep",
        rotation=25.0,
        offset_mas=(40.0, -30.0),
        defects=False,
        sources=grid_of_sources(4, 15.0),
    )


@pytest.fixture(scope="module")
def blank():
    sources = grid_of_sources(1, 40.0, flux=1e-3)
    return simulate_field(3, size_arcmin=0.9, defects=False, sources=sources)


def aperture_flux(image, x, y, radius):
    rows, columns = np.indices(image.shape)
    return image[np.hypot(columns - x, rows - y) < radius].sum()


def fitted(image, psf, x, y):
    """Position and flux of a star by least squares of the given PSF and its gradients."""
    half = psf.shape[0] // 2
    gradient_y, gradient_x = np.gradient(psf)
    for _ in range(8):
        i, j = round(x), round(y)
        shift = galsim.InterpolatedImage(galsim.Image(psf.astype(float), scale=1.0), x_interpolant="lanczos7")
        stamp = galsim.ImageD(psf.shape[0], psf.shape[0])
        shift.drawImage(stamp, method="no_pixel", offset=(x - i, y - j), scale=1.0)
        model = stamp.array
        gradient_y, gradient_x = np.gradient(model)
        cut = image[j - half : j + half + 1, i - half : i + half + 1]
        # Only the core: the gradient of an undersampled PSF is poor elsewhere.
        matrix = np.column_stack([model.ravel(), -gradient_x.ravel(), -gradient_y.ravel()])
        solution, *_ = np.linalg.lstsq(matrix, cut.ravel(), rcond=None)
        x, y = x + solution[1] / solution[0], y + solution[2] / solution[0]
    return x, y, solution[0]


def test_images_keep_the_contract(stars):
    rubin, euclid, truth = stars
    assert rubin.bands == ("u", "g", "r", "i", "z", "y")
    assert euclid.bands == ("VIS", "Y", "J", "H")
    assert rubin.pixel_scale == pytest.approx(0.2, rel=1e-4)
    assert euclid.pixel_scale == pytest.approx(0.1, rel=1e-4)
    assert euclid.shape == (600, 600)
    assert all(rubin.psf_source[band] == "given" for band in rubin.bands)
    # The Rubin image covers all of the Euclid one, though turned.
    corners = euclid.wcs.pixel_to_world_values([0, 599, 0, 599], [0, 0, 599, 599])
    x, y = rubin.wcs.world_to_pixel_values(*corners)
    assert min(x.min(), y.min()) > 0
    assert max(x.max(), y.max()) < rubin.shape[0] - 1
    for name in (
        "id",
        "sky_centroid",
        "x",
        "y",
        "rubin_i_flux",
        "euclid_vis_flux",
        "half_light_radius",
        "e1",
        "e2",
    ):
        assert name in truth.colnames
    for name in ("is_star", "snr", "rubin_snr", "euclid_snr", "rubin_y_snr", "euclid_y_snr", "nearest"):
        assert name in truth.colnames


@pytest.mark.parametrize("kind", ["star", "galaxy"])
def test_photometry_of_isolated_sources(kind):
    # Moffat: the spikes of an optical PSF carry 2 % of the light out of any aperture.
    sources = grid_of_sources(3, 15.0, flux=2e5, kind=kind)
    rubin, euclid, truth = simulate_field(
        6, size_arcmin=0.75, depth="deep", psf="moffat", defects=False, sources=sources
    )
    for image, radius in ((rubin, 30), (euclid, 60)):
        x, y = image.wcs.world_to_pixel(truth["sky_centroid"])
        for band in image.bands:
            prefix = f"{image.survey.name}_{band.lower()}"
            flux = [aperture_flux(image.data[band], *at, radius) for at in zip(x, y, strict=True)]
            assert np.median(flux / truth[f"{prefix}_flux"].value) == pytest.approx(1.0, abs=0.01)


def test_galaxies_are_those_of_galsim():
    """One galaxy drawn by GalSim's own convolution agrees with the shared-transform renderer."""
    from jaisp.simulation import _galsim

    profile = galsim.Sersic(2.5, half_light_radius=0.3).shear(g1=0.25, g2=-0.1)
    psf = galsim.Convolve(galsim.Kolmogorov(fwhm=0.75), galsim.Pixel(0.2))
    matrix = galsim.JacobianWCS(0.18, 0.087, -0.087, 0.18)
    pixels = galsim.Convolve(matrix.toImage(galsim.Kolmogorov(fwhm=0.75)), galsim.Pixel(1.0))
    renderer = _galsim.Renderer([_galsim._drawn(pixels, 320, 0.5)], matrix, 100, 2)
    renderer.add((profile,), np.array([[1e4]]), 48.3, 51.8, 45)
    expected = galsim.ImageD(galsim.BoundsI(0, 99, 0, 99))
    galsim.Convolve(profile, galsim.Kolmogorov(fwhm=0.75)).withFlux(1e4).drawImage(
        expected, wcs=matrix, center=galsim.PositionD(48.3, 51.8)
    )
    assert psf.flux == pytest.approx(1.0)
    peak = expected.array.max()
    assert renderer.images[0] == pytest.approx(expected.array, abs=float(2e-3 * peak))


def test_positions_follow_the_wcs_and_the_offset(stars):
    rubin, euclid, truth = stars
    offsets = []
    for image, band in ((euclid, "VIS"), (euclid, "J"), (rubin, "i")):
        at = np.transpose(image.wcs.world_to_pixel(truth["sky_centroid"]))
        found = np.array([fitted(image.data[band], image.psf[band], *xy)[:2] for xy in at])
        sky = SkyCoord(*image.wcs.pixel_to_world_values(*found.T), unit="deg")
        east, north = truth["sky_centroid"].spherical_offsets_to(sky)
        offsets.append([np.median(east.mas), np.median(north.mas)])
    assert offsets[0] == pytest.approx([0, 0], abs=5)
    assert offsets[1] == pytest.approx([0, 0], abs=5)
    assert offsets[2] == pytest.approx([40, -30], abs=5)


def test_noise_is_as_asked(blank):
    rubin, euclid, _ = blank
    depths = dict(zip(rubin.bands, (4.2, 1.6, 1.6, 2.7, 5.4, 11.0), strict=True))

    def binned(data, n):
        size = data.shape[0] // n * n
        return data[:size, :size].reshape(size // n, n, -1, n).sum(axis=(1, 3)).std() / n

    def lag_one(data):
        return np.mean(data[:, 1:] * data[:, :-1]) / np.mean(data**2)

    for band, sigma in depths.items():
        data = rubin.data[band]
        assert data.std() == pytest.approx(np.sqrt(np.median(rubin.variance[band])), rel=0.03)
        assert binned(data, 10) == pytest.approx(sigma, rel=0.2)
        assert lag_one(data) == pytest.approx(0.158, abs=0.03)
    assert lag_one(euclid.data["VIS"]) == pytest.approx(0.215, abs=0.03)
    ratio = np.sqrt(np.median(euclid.variance["VIS"])) / euclid.data["VIS"].std()
    assert 1.3 < ratio < 1.5
    for band in ("Y", "J", "H"):
        assert 0.8 <= lag_one(euclid.data[band]) < 0.88
        stated = np.sqrt(np.median(euclid.variance[band]))
        assert binned(euclid.data[band], 20) == pytest.approx(stated, rel=0.2)
        assert 3.0 < stated / euclid.data[band].std() < 4.8


def test_optimal_snr_is_that_of_the_given_psf(stars):
    rubin, _, truth = stars
    psf = rubin.psf["r"].astype(float)
    share = ((1 + 2 * 0.08**2) / (1 + 2 * 0.08) ** 2) ** 2
    sky = np.percentile(rubin.variance["r"], 5) / share
    expected = 1e5 * np.sqrt((psf**2).sum() / sky)
    assert np.median(truth["rubin_r_snr"]) == pytest.approx(expected, rel=0.05)
    assert truth["snr"] == pytest.approx(np.hypot(truth["rubin_snr"], truth["euclid_snr"]), rel=1e-4)


def test_seeds_reproduce():
    one, two, other = (
        simulate_field(seed, size_arcmin=0.3, psf="moffat", galaxies="knots", density=60.0)
        for seed in (4, 4, 5)
    )
    assert np.array_equal(one[0].data["g"], two[0].data["g"])
    assert np.array_equal(one[1].data["H"], two[1].data["H"])
    assert len(one[2]) == len(two[2])
    assert not np.array_equal(one[1].data["H"], other[1].data["H"])


def test_user_mistakes(monkeypatch):
    with pytest.raises(ConfigError, match=r"depth is 'ten_years' \(did you mean 'ten_year'"):
        simulate_field(0, depth="ten_years")
    with pytest.raises(ConfigError, match="psf is 'gauss'"):
        simulate_field(0, psf="gauss")
    with pytest.raises(ConfigError, match="size_arcmin is 100"):
        simulate_field(0, size_arcmin=100)
    monkeypatch.setitem(sys.modules, "galsim", None)
    with pytest.raises(MissingDependencyError, match="pip install"):
        simulate_field(0)
