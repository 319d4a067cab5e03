# Licensed under a 3-clause BSD style license - see LICENSE
"""`read_euclid`: mosaics of MER, cutouts of them, and files that hold everything."""

import astropy.units as u
import numpy as np
import pytest
from astropy.io import fits
from astropy.wcs import WCS

from jaisp.exceptions import FileError, JaispWarning
from jaisp.image import psf_fwhm
from jaisp.io import read_euclid

from ._layouts import (
    TILE,
    ZERO_POINTS,
    image_hdu,
    pixels,
    psf_image,
    wcs_cards,
    write_cutout,
    write_euclid,
    write_mer,
    write_psf_grid,
)

VIS_FACTOR = 10 ** ((31.4 - 24.6) / 2.5)


@pytest.mark.parametrize(
    ("name", "band"),
    [
        ("VIS", "VIS"),
        ("NIR_Y", "Y"),
        ("NIR_J", "J"),
        ("NISP-H", "H"),
        ("H", "H"),
        ("Y", "Y"),
        ("Euclid_VIS", "VIS"),
    ],
)
def test_one_file_with_everything(tmp_path, name, band):
    image = read_euclid(write_euclid(tmp_path / "a.fits", filter_name=name))
    factor = 10 ** ((31.4 - ZERO_POINTS.get(name, 24.6)) / 2.5)
    assert image.bands == (band,)
    np.testing.assert_allclose(image.data[band], pixels(2, sd=2.0) * factor, rtol=1e-5)
    np.testing.assert_allclose(image.variance[band], (2 * factor) ** 2, rtol=1e-5)
    assert image.psf_source[band] == "given"
    assert image.psf[band].sum() == pytest.approx(1, abs=1e-5)


def test_factors_to_njy_of_q1(tmp_path):
    """VIS 524.8, Y 4.365, J 3.631, H 3.981: multiplied, not divided."""
    for name, factor in {"VIS": 524.8, "NIR_Y": 4.365, "NIR_J": 3.631, "NIR_H": 3.981}.items():
        path = write_euclid(tmp_path / f"{name}.fits", filter_name=name)
        image = read_euclid(path)
        assert image.data[image.bands[0]][20, 20] == pytest.approx(
            factor * pixels(2, sd=2.0)[20, 20], rel=1e-3
        )


def test_finite_sentinels_are_masked(tmp_path):
    data, rms = pixels(2, sd=2.0), np.full((40, 40), 2.0, np.float32)
    data[:5], rms[:5] = 0, 1e16
    image = read_euclid(write_euclid(tmp_path / "a.fits", data=data, rms=rms))
    assert image.mask["VIS"][:5].all()
    assert not image.mask["VIS"][5:].any()
    assert np.isfinite(image.variance["VIS"]).all()
    assert image.noise["VIS"].pixel_sd == pytest.approx(2 * VIS_FACTOR, rel=1e-4)


def test_zeros_of_integer_counts_are_no_gaps(tmp_path):
    counts = np.rint(np.random.default_rng(1).normal(0, 3, (60, 60))).astype(np.int16)
    path = tmp_path / "VIS.fits"
    image_hdu(counts, primary=True, BUNIT="adu", MAGZERO=27.0, **wcs_cards(0.1)).writeto(path)
    assert not read_euclid(path).mask["VIS"].any()


def test_flags(tmp_path):
    flags = np.zeros((40, 40), np.int32)
    flags[1, 1], flags[2, 2], flags[3, 3], flags[4, 4] = 1, 1 << 3, 1 << 4, 1 << 22
    image = read_euclid(write_euclid(tmp_path / "a.fits", flags=flags))
    # Invalid, saturated, no data; a cosmic ray in one exposure of four is none of them.
    assert sorted(np.argwhere(image.mask["VIS"]).tolist()) == [[1, 1], [2, 2], [4, 4]]
    image = read_euclid(write_euclid(tmp_path / "b.fits", filter_name="NIR_H", flags=flags))
    assert sorted(np.argwhere(image.mask["H"]).tolist()) == [[1, 1]]


def test_planes_beside_an_image_named_by_its_band(tmp_path):
    path = write_euclid(tmp_path / "a.fits", flags=np.eye(40, dtype=np.int32))
    fits.setval(path, "EXTNAME", value="VIS")
    image = read_euclid(path)
    np.testing.assert_allclose(image.variance["VIS"], (2 * VIS_FACTOR) ** 2, rtol=1e-5)
    assert image.mask["VIS"].sum() == 40
    assert image.psf_source["VIS"] == "given"


def test_flags_that_would_mask_everything_are_disbelieved(tmp_path):
    flags = np.full((40, 40), 2 + 1, np.int32)
    flags[:2] = 0
    path = write_euclid(tmp_path / "a.fits", flags=flags)
    with pytest.warns(JaispWarning, match="flags mark 95% of the VIS pixels"):
        image = read_euclid(path)
    assert not image.mask["VIS"].any()


@pytest.mark.parametrize("band", ["VIS", "NIR-Y", "NIR-H"])
def test_mer_files_beside_the_mosaic(tmp_path, band):
    flags = np.zeros((40, 40), np.int32)
    flags[6, 6] = 2
    flags[7, 7] = 1
    path = write_mer(tmp_path, band=band, flags=flags, rms=3.0)
    # Another tile's files lie in the same folder.
    other = path.name.replace(TILE, "TILE999999999").replace("BGSUB-MOSAIC-" + band, f"MOSAIC-{band}-RMS")
    image_hdu(np.ones((40, 40)), primary=True).writeto(tmp_path / other)
    image = read_euclid(path)
    name = image.bands[0]
    factor = 10 ** ((31.4 - ZERO_POINTS[band.replace("-", "_")]) / 2.5)
    np.testing.assert_allclose(image.variance[name], (3 * factor) ** 2, rtol=1e-5)
    assert np.argwhere(image.mask[name]).tolist() == [[7, 7]]
    assert image.psf_source[name] == "given"
    np.testing.assert_allclose(image.psf[name], psf_image(21, 0.9), atol=1e-4)


@pytest.mark.parametrize("cuts", [("_cut1", "_cut2"), ("_east", "_b"), ("", "_2")])
def test_companions_of_several_cutouts_of_one_tile(tmp_path, cuts):
    """Those that share most with the image's name, and in any case those of the same place."""
    paths = []
    for number, cut in enumerate(cuts):
        flags = np.zeros((40, 40), np.int32)
        flags[number, 3] = 1
        wcs = wcs_cards(0.1, crpix=(20.5 - 100 * number, 20.5))
        paths.append(write_mer(tmp_path, rms=2.0 + number, flags=flags, wcs=wcs, cut=cut))
    for number, path in enumerate(paths):
        image = read_euclid(path)
        np.testing.assert_allclose(image.variance["VIS"], ((2 + number) * VIS_FACTOR) ** 2, rtol=1e-5)
        assert np.argwhere(image.mask["VIS"]).tolist() == [[number, 3]]


def test_companions_by_name_alone(tmp_path):
    """Cutouts of one place and shape, as of two versions of a mosaic, have their own."""
    paths = [write_mer(tmp_path, rms=rms, cut=f"_cut{rms:.0f}") for rms in (2.0, 3.0)]
    for path, rms in zip(paths, (2.0, 3.0), strict=True):
        np.testing.assert_allclose(read_euclid(path).variance["VIS"], (rms * VIS_FACTOR) ** 2, rtol=1e-5)


def test_newest_version_of_a_companion(tmp_path):
    path = write_mer(tmp_path, rms=None)
    for number, version in enumerate(("BB87CE_20241104T161703.183124Z", "0A87CE_20251231T161703.183124Z"), 2):
        name = f"EUC_MER_MOSAIC-VIS-RMS_{TILE}-{version}_00.00.fits"
        image_hdu(np.full((40, 40), float(number)), primary=True).writeto(tmp_path / name)
    np.testing.assert_allclose(read_euclid(path).variance["VIS"], (3 * VIS_FACTOR) ** 2, rtol=1e-5)


def test_a_shell_pattern_catches_companions_too(tmp_path):
    write_mer(tmp_path, band="VIS", flags=np.zeros((40, 40), np.int32))
    write_mer(tmp_path, band="NIR-J")
    image = read_euclid(sorted(tmp_path.glob("EUC_MER_*.fits")))
    assert image.bands == ("VIS", "J")
    with pytest.raises(FileError, match="is an RMS, FLAG, PSF or background file; give the mosaic"):
        read_euclid(sorted(tmp_path.glob("*-RMS_*.fits")))


@pytest.mark.parametrize("endings", [("rms", "flag", "psf"), ("RMS", "Flag", "Psf")])
def test_companions_of_a_file_of_any_name_among_the_files(tmp_path, endings):
    path = write_euclid(tmp_path / "euclid_vis.fits", rms=None, psf=False)
    bad = np.zeros((40, 40), np.int32)
    bad[3, 4] = 1
    for ending, values in zip(endings, (np.full((40, 40), 5.0), bad, psf_image(21, 0.9)), strict=True):
        image_hdu(values, primary=True, **wcs_cards(0.1)).writeto(tmp_path / f"euclid_vis_{ending}.fits")
    image = read_euclid(sorted(tmp_path.glob("*.fits")))
    assert image.bands == ("VIS",)
    assert image.mask["VIS"].sum() == image.mask["VIS"][3, 4] == 1
    assert image.noise["VIS"].stated
    assert image.psf_source["VIS"] == "given"
    assert image.meta["files"] == {"VIS": str(path)}


@pytest.mark.parametrize("end", [".header", ".md5", ".part", ".png"])
def test_files_beside_that_are_no_fits_are_passed_over(tmp_path, end):
    path = write_mer(tmp_path, flags=np.eye(40, dtype=np.int32))
    other = write_euclid(tmp_path / "euclid_H.fits", filter_name="NIR_H")
    image_hdu(psf_image()).writeto(tmp_path / "euclid_H_psf.fits.gz")
    for companion in [*tmp_path.glob("EUC_MER_*"), *tmp_path.glob("euclid_H*")]:
        companion.with_name(companion.name + end).write_text("SIMPLE")
    (tmp_path / f"euclid_H_rms.fits{end}").write_text("SIMPLE")
    for image in (read_euclid(path), read_euclid(other)):
        assert set(image.psf_source.values()) == {"given"}
        assert all(image.noise[band].stated for band in image.bands)


def test_mosaic_without_companions(tmp_path):
    path = write_mer(tmp_path, rms=None, grid_psf=False)
    image = read_euclid(path)
    assert image.psf_source["VIS"] == "survey"
    assert not image.noise["VIS"].stated


def test_stamps_nearest_to_the_image_are_taken(tmp_path):
    """A cutout at the right of a mosaic has the PSFs of that side."""
    cards = wcs_cards(0.1, crpix=(600.5, 600.5))
    write_psf_grid(tmp_path / "grid.fits", cards, side=1200, wide_from=600)
    for place, sd in ((1000.0, 2.5), (100.0, 0.9)):
        cut = wcs_cards(0.1, crpix=(600.5 - place, 600.5 - 300.0))
        path = write_euclid(tmp_path / f"VIS_{place}.fits", wcs=cut, psf=False)
        (tmp_path / f"VIS_{place}_psf.fits").write_bytes((tmp_path / "grid.fits").read_bytes())
        expected = psf_fwhm(psf_image(21, sd))
        assert psf_fwhm(read_euclid(path).psf["VIS"]) == pytest.approx(expected, rel=0.02)
        given = read_euclid(path, psf=tmp_path / "grid.fits")
        assert psf_fwhm(given.psf["VIS"]) == pytest.approx(expected, rel=0.02)


def test_rms_beside_a_file_of_any_name(tmp_path):
    path = write_euclid(tmp_path / "euclid_Y.fits", filter_name="NIR_Y", rms=None)
    image_hdu(np.full((40, 40), 5.0), primary=True).writeto(tmp_path / "euclid_Y_rms.fits")
    image = read_euclid(path)
    assert image.noise["Y"].stated
    np.testing.assert_allclose(image.variance["Y"], (5 * 10 ** (1.6 / 2.5)) ** 2, rtol=1e-5)


@pytest.mark.parametrize("name", ["euclid_Y.fits", "euclid_y.fits", "EUC_NIR_Y_cut.fits"])
def test_band_from_the_file_name(tmp_path, name):
    path = tmp_path / name
    image_hdu(pixels(), primary=True, MAGZERO=29.8, **wcs_cards(0.1)).writeto(path)
    assert read_euclid(path).bands == ("Y",)


@pytest.mark.parametrize("kind", ["FLUX", "BGSUB", "SCI"])
def test_cutout(tmp_path, kind):
    path = write_cutout(tmp_path / "cutout.fits", kind=kind)
    image = read_euclid(path)
    assert image.bands == ("VIS", "Y", "J", "H")
    np.testing.assert_allclose(image.data["VIS"], pixels(2, sd=2.0) * VIS_FACTOR, rtol=1e-5)
    # CD and PC both stand in the header: CD counts, once.
    expected = WCS(fits.Header(wcs_cards(0.1, crpix=(7413.0, -4610.0), crval=(266.462, 66.0))))
    place = np.array([0, 30.5, 39]), np.array([0, 1.5, 39])
    np.testing.assert_allclose(
        image.wcs.pixel_to_world_values(*place), expected.pixel_to_world_values(*place), rtol=0, atol=1e-10
    )
    assert read_euclid(path, bands=["H", "VIS"]).bands == ("VIS", "H")
    assert read_euclid(path, bands="NIR_J").bands == ("J",)


def test_bands_in_the_order_of_the_survey_not_of_the_files(tmp_path):
    for band in ("VIS", "H"):
        image_hdu(pixels(), primary=True, MAGZERO=24.6, **wcs_cards(0.1)).writeto(
            tmp_path / f"euclid_{band}.fits"
        )
    image = read_euclid(sorted(tmp_path.glob("euclid_*.fits")), bands=["VIS", "H"])
    assert all(path.endswith(f"euclid_{band}.fits") for band, path in image.meta["files"].items())


def test_no_zero_point(tmp_path):
    path = write_euclid(tmp_path / "VIS.fits", zero_point=False)
    with pytest.warns(JaispWarning, match=r"no MAGZERO and no BUNIT; zero point 24.6 assumed"):
        image = read_euclid(path)
    np.testing.assert_allclose(image.data["VIS"], pixels(2, sd=2.0) * VIS_FACTOR, rtol=1e-5)
    plain = read_euclid(path, zero_point=31.4)
    np.testing.assert_allclose(plain.data["VIS"], pixels(2, sd=2.0), rtol=1e-5)


@pytest.mark.parametrize(
    ("kind", "value", "cards"),
    [
        ("RMS", 0.002, {"BUNIT": "uJy"}),
        ("VARIANCE", 4e-6, {"BUNIT": "uJy2"}),
        ("WEIGHT", 0.25e6, {"BUNIT": "uJy-2"}),
        ("RMS", 2 / VIS_FACTOR, {"MAGZERO": 24.6}),
        ("VARIANCE", 4 / VIS_FACTOR**2, {"MAGZERO": 24.6}),
        # As its image states it: copied along with the header.
        ("RMS", 2.0, {"BUNIT": "nJy", "MAGZERO": 24.6}),
        ("VARIANCE", 4.0, {"BUNIT": "nJy"}),
        ("RMS", 2.0, {"BUNIT": "unknown"}),
    ],
)
def test_units_of_uncertainties(tmp_path, kind, value, cards):
    image = image_hdu(pixels(), primary=True, BUNIT="nJy", **wcs_cards(0.1))
    beside = image_hdu(np.full((40, 40), value, np.float32), kind, **cards)
    fits.HDUList([image, beside]).writeto(tmp_path / "VIS.fits")
    np.testing.assert_allclose(read_euclid(tmp_path / "VIS.fits").variance["VIS"], 4, rtol=1e-5)


def test_a_zero_point_that_is_given_counts_for_the_uncertainties_too(tmp_path):
    image = read_euclid(write_mer(tmp_path, rms=3.0), zero_point=28.9)
    np.testing.assert_allclose(image.variance["VIS"], 30.0**2, rtol=1e-5)


def test_counts_have_the_zero_point_of_q1(tmp_path):
    path = write_euclid(tmp_path / "VIS.fits", zero_point=False)
    fits.setval(path, "BUNIT", value="electron/s")
    with pytest.warns(JaispWarning, match=r"no MAGZERO and BUNIT 'electron/s'; zero point 24.6 assumed"):
        read_euclid(path)


def test_zero_point_of_hst(tmp_path):
    """A count per second is a flux density of PHOTFLAM at PHOTPLAM; MAGZERO goes before."""
    cards = {"PHOTFLAM": 7.07e-20, "PHOTPLAM": 8045.0, "FILTER": "VIS", **wcs_cards(0.05)}
    unit = u.erg / u.s / u.cm**2 / u.AA
    factor = (cards["PHOTFLAM"] * unit).to_value(u.nJy, u.spectral_density(cards["PHOTPLAM"] * u.AA))
    path = tmp_path / "a.fits"
    for name in ("ELECTRONS/S", None):
        image_hdu(pixels(), primary=True, BUNIT=name, **cards).writeto(path, overwrite=True)
        image = read_euclid(path)
        np.testing.assert_allclose(image.data["VIS"], pixels() * factor, rtol=1e-4)
        assert image.meta["calibration"] == {"VIS": "PHOTFLAM"}
    image_hdu(pixels(), primary=True, BUNIT="ELECTRONS", **cards).writeto(path, overwrite=True)
    with pytest.warns(JaispWarning, match=r"BUNIT 'ELECTRONS'; zero point 25.94 assumed"):
        read_euclid(path)
    image_hdu(pixels(), primary=True, MAGZERO=24.6, **cards).writeto(path, overwrite=True)
    np.testing.assert_allclose(read_euclid(path).data["VIS"], pixels() * VIS_FACTOR, rtol=1e-5)


def test_band_in_front_of_the_name(tmp_path):
    path = tmp_path / "f814w.fits"
    image_hdu(pixels(), primary=True, FILTER="F814W", **wcs_cards(0.03)).writeto(path)
    with pytest.warns(JaispWarning, match=r"zero point 25.94 assumed"):
        image = read_euclid(f"VIS={path}")
    assert image.bands == ("VIS",)
    with pytest.warns(JaispWarning, match=r"zero point 25.94 assumed"):
        assert read_euclid(path, bands=["VIS"]).pixel_scale == pytest.approx(0.03)


@pytest.mark.parametrize("name", ["EUCLJ174752.17+660743.0.fits", "example_ra63.587_dec-49.684_300px.fits"])
def test_real_cutouts(realdata, name):
    path = realdata / "euclid_q1" / name
    image = read_euclid(path)
    assert image.bands == ("VIS", "Y", "J", "H")
    assert image.pixel_scale == pytest.approx(0.1)
    header = fits.getheader(path, "VIS_FLUX")
    for key in ("PC1_1", "PC2_2", "CDELT1", "CDELT2"):
        del header[key]
    far = np.array([0, 50, 99]), np.array([0, 20, 99])
    np.testing.assert_allclose(
        image.wcs.pixel_to_world_values(*far), WCS(header).pixel_to_world_values(*far), rtol=0, atol=1e-10
    )
    for band in image.bands:
        assert image.psf_source[band] == "given"
        assert image.psf[band].sum() == pytest.approx(1, abs=1e-5)
    assert 0.15 < psf_fwhm(image.psf["VIS"]) * 0.1 < 0.22
    sums = [finding for finding in image.findings if "PSF summed" in finding.what]
    assert [finding.band for finding in sums] == list(image.bands)


def test_real_hst_image(realdata):
    folder = realdata / "hsc_hst"
    image = read_euclid(
        folder / "Cut_HST1.fits", bands=["VIS"], zero_point=25.94, psf=folder / "PSF_HST.fits"
    )
    assert image.pixel_scale == pytest.approx(0.03)
    assert image.psf["VIS"].shape == (179, 179)
    assert not image.noise["VIS"].stated
