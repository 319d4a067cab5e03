# Licensed under a 3-clause BSD style license - see LICENSE
"""`read_rubin`: every layout that Rubin's and similar images come in."""

import gzip
from contextlib import nullcontext

import numpy as np
import pytest
from astropy.io import fits
from astropy.nddata import CCDData, InverseVariance, StdDevUncertainty, VarianceUncertainty
from astropy.wcs import WCS, DistortionLookupTable

from jaisp.exceptions import FileError, JaispWarning
from jaisp.io import read_rubin

from ._layouts import (
    DP1_BITS,
    image_hdu,
    pixels,
    psf_image,
    wcs_cards,
    write_cutout,
    write_mer,
    write_rubin,
)


def test_lsst_layout(tmp_path):
    data = pixels(5, sd=2.0)
    image = read_rubin(write_rubin(tmp_path / "a.fits", band="i", data=data))
    assert image.survey.name == "rubin"
    assert image.bands == ("i",)
    assert image.data["i"].dtype == np.float32
    assert image.data["i"].dtype.isnative
    np.testing.assert_array_equal(image.data["i"], data)
    np.testing.assert_array_equal(image.variance["i"], np.float32(4))
    assert not image.mask["i"].any()
    assert image.psf_source["i"] == "given"
    assert image.psf["i"].shape == (25, 25)
    assert image.pixel_scale == pytest.approx(0.2)
    assert image.meta["calibration"]["i"] == "BUNIT nJy"
    assert image.meta["files"]["i"].endswith("a.fits")


@pytest.mark.parametrize("band_key", ["BAND", "FILTER", "HIERARCH"])
@pytest.mark.parametrize("naming", ["EXTNAME", "EXTTYPE"])
@pytest.mark.parametrize("unit_in", ["PRIMARY", "IMAGE"])
def test_where_band_unit_and_names_stand(tmp_path, band_key, naming, unit_in):
    path = write_rubin(
        tmp_path / "a.fits", band="z", band_key=band_key, naming=naming, unit_in=unit_in, unit="uJy"
    )
    image = read_rubin(path)
    assert image.bands == ("z",)
    np.testing.assert_allclose(image.data["z"], 1000 * pixels(1, sd=2.0), rtol=1e-5)
    np.testing.assert_allclose(image.variance["z"], 4e6, rtol=1e-5)


def test_compressed_hdus(tmp_path):
    bits = np.zeros((40, 40), np.int32)
    bits[3, 4] = 1 << DP1_BITS["SAT"]
    image = read_rubin(write_rubin(tmp_path / "a.fits.fz", band="r", compressed=True, bits=bits))
    np.testing.assert_array_equal(image.data["r"], pixels(1, sd=2.0))
    assert image.mask["r"].sum() == 1


def test_gzipped_file(tmp_path):
    path = write_rubin(tmp_path / "rubin_r.fits", band_key=None)
    packed = tmp_path / "rubin_r.fits.gz"
    packed.write_bytes(gzip.compress(path.read_bytes()))
    assert read_rubin(packed).bands == ("r",)


@pytest.mark.parametrize("end", ["fits", "fits.gz", "fits.fz"])
@pytest.mark.parametrize("kind", ["u2", "u4", "u8", "i1"])
def test_masks_of_scaled_integers(tmp_path, kind, end):
    """FITS has no unsigned integers but bytes: they are written with BZERO."""
    bits = np.zeros((40, 40), kind)
    bits[3, 4] = 1 << DP1_BITS["SAT"]
    path = write_rubin(tmp_path / f"a.{end}", bits=bits, compressed=end.endswith("fz") and kind != "u8")
    assert np.argwhere(read_rubin(path).mask["g"]).tolist() == [[3, 4]]


def test_scaled_pixels(tmp_path):
    data = np.round(100 * pixels()).astype(np.int32)
    data[5, 6] = -99999
    path = write_rubin(tmp_path / "a.fits", data=data)
    for key, value in {"BSCALE": 0.01, "BZERO": 3.005, "BLANK": -99999}.items():
        fits.setval(path, key, value=value, ext=1)
    image = read_rubin(path)
    assert np.argwhere(image.mask["g"]).tolist() == [[5, 6]]
    assert image.data["g"][20, 20] == pytest.approx(0.01 * data[20, 20] + 3.005, rel=1e-5)


def test_mask_bits_go_by_the_cards_of_the_file(tmp_path):
    """The same number means DETECTED in one file and SAT in another."""
    bits = np.zeros((40, 40), np.int32)
    bits[10, 10] = 1 << 5
    detected = read_rubin(write_rubin(tmp_path / "a.fits", bits=bits))
    assert not detected.mask["g"].any()
    saturated = read_rubin(write_rubin(tmp_path / "b.fits", bits=bits, numbers={"SAT": 5, "DETECTED": 1}))
    assert np.argwhere(saturated.mask["g"]).tolist() == [[10, 10]]


@pytest.mark.parametrize("plane", sorted(DP1_BITS))
def test_which_mask_planes_count(tmp_path, plane):
    bits = np.zeros((40, 40), np.int32)
    bits[7, 8] = 1 << DP1_BITS[plane]
    image = read_rubin(write_rubin(tmp_path / "a.fits", bits=bits))
    bad = plane in {"BAD", "SAT", "CR", "EDGE", "NO_DATA", "SENSOR_EDGE", "UNMASKEDNAN"}
    assert bool(image.mask["g"][7, 8]) is bad
    assert image.mask["g"].sum() == bad


# Of a visit image and of a coadd of cells.
DP2_PLANES = {
    "visit": [
        "BAD", "COSMIC_RAY", "CROSSTALK", "DETECTED", "DETECTION_EDGE", "INTERPOLATED", "ITL_DIP",
        "NOT_DEBLENDED", "NO_DATA", "PARTLY_VIGNETTED", "SATURATED", "SPIKE", "SUSPECT", "VIGNETTED",
    ],
    "coadd": [
        "NO_DATA", "INTERPOLATED", "COSMIC_RAY", "SATURATED", "DETECTION_EDGE", "CLIPPED", "REJECTED",
        "DETECTED", "INEXACT_PSF",
    ],
}  # fmt: skip


@pytest.mark.parametrize("kind", DP2_PLANES)
def test_mask_planes_of_dp2(tmp_path, kind):
    """Cards MSKN name the planes, MSKM tell their values."""
    names = DP2_PLANES[kind]
    bits = np.zeros((40, 40), np.int32)
    bits[5, : len(names)] = 1 << np.arange(len(names))
    path = write_rubin(tmp_path / "a.fits", bits=bits, numbers={})
    for number, name in enumerate(names):
        fits.setval(path, f"MSKN{number:04d}", value=name, ext=2)
        fits.setval(path, f"MSKM{number:04d}", value=1 << number, ext=2)
    image = read_rubin(path)
    masked = [names[column] for row, column in np.argwhere(image.mask["g"])]
    bad = {"BAD", "COSMIC_RAY", "SATURATED", "DETECTION_EDGE", "NO_DATA"}
    assert masked == [name for name in names if name in bad]


def test_mask_without_cards(tmp_path):
    bits = np.zeros((40, 40), np.int32)
    bits[1, 1] = 1
    image = read_rubin(write_rubin(tmp_path / "a.fits", bits=bits, numbers={}))
    assert image.mask["g"].sum() == 1
    bits[2, 2] = 1 << 5
    bits[3, 3] = 1 << 8
    path = write_rubin(tmp_path / "b.fits", bits=bits, numbers={})
    with pytest.warns(JaispWarning, match="no MP_ cards"):
        image = read_rubin(path)
    assert sorted(np.argwhere(image.mask["g"]).tolist()) == [[1, 1], [3, 3]]


def test_flux_of_magnitude_zero(tmp_path):
    path = write_rubin(tmp_path / "a.fits", unit=None, primary_cards={"FLUXMAG0": 63095734448.0194})
    image = read_rubin(path)
    np.testing.assert_allclose(image.data["g"], pixels(1, sd=2.0) * 10 ** (4.4 / 2.5), rtol=1e-5)
    assert image.meta["calibration"]["g"] == "FLUXMAG0"
    # Numbers in quotes are numbers.
    path = write_rubin(tmp_path / "b.fits", unit="adu", primary_cards={"MAGZERO": "27.0"})
    np.testing.assert_allclose(read_rubin(path).data["g"], pixels(1, sd=2.0) * 10 ** (4.4 / 2.5), rtol=1e-5)


@pytest.mark.parametrize("constant", [True, False])
def test_photocalib(tmp_path, constant):
    path = write_rubin(tmp_path / "a.fits", unit=None)
    flags = fits.Column("flags", "1X", array=[[constant]])
    mean = fits.Column("calibrationMean", "D", array=[2.5])
    fits.append(path, fits.BinTableHDU.from_columns([flags, mean]).data)
    with pytest.warns(JaispWarning, match="PhotoCalib varies") if not constant else nullcontext():
        image = read_rubin(path)
    np.testing.assert_allclose(image.data["g"], 2.5 * pixels(1, sd=2.0), rtol=1e-5)
    assert image.meta["calibration"] == {"g": "PhotoCalib"}


@pytest.mark.parametrize(
    ("unit", "factor"),
    [
        ("nJy/pix", 1), ("nJy pixel-1", 1), ("njy", 1), ("UJY", 1000), ("uJy/pixel", 1000), ("mJy", 1e6),
        ("JY", 1e9), ("microJy", 1000), ("nanomaggy", 3630.78), ("nanomaggies/pix", 3630.78),
    ],
)  # fmt: skip
def test_spellings_of_units(tmp_path, unit, factor):
    image = read_rubin(write_rubin(tmp_path / "a.fits", unit=unit))
    np.testing.assert_allclose(image.data["g"], factor * pixels(1, sd=2.0), rtol=1e-5)
    assert image.meta["calibration"]["g"] == f"BUNIT {unit}"


@pytest.mark.parametrize(
    ("unit", "factor"), [("erg/s/cm2/Hz", 1e32), ("W/m2/Hz", 1e35), ("1e-29 erg/s/cm2/Hz", 1e3)]
)
@pytest.mark.parametrize("kind", ["VARIANCE", "WEIGHT", "RMS"])
def test_units_whose_squares_need_double_precision(tmp_path, unit, factor, kind):
    image = image_hdu(pixels().astype(float) / factor, primary=True, BUNIT=unit, **wcs_cards())
    value = {"VARIANCE": 9 / factor**2, "WEIGHT": factor**2 / 9, "RMS": 3 / factor}[kind]
    fits.HDUList([image, fits.ImageHDU(np.full((40, 40), value), name=kind)]).writeto(tmp_path / "g.fits")
    image = read_rubin(tmp_path / "g.fits")
    assert image.data["g"].dtype == image.variance["g"].dtype == np.float32
    np.testing.assert_allclose(image.data["g"], pixels(), rtol=1e-5)
    np.testing.assert_allclose(image.variance["g"], 9, rtol=1e-5)


def test_pixels_too_large_for_single_precision_are_masked(tmp_path):
    data = pixels().astype(float)
    data[3, 4] = 1e300
    image_hdu(data, primary=True, BUNIT="nJy", **wcs_cards()).writeto(tmp_path / "g.fits")
    assert np.argwhere(read_rubin(tmp_path / "g.fits").mask["g"]).tolist() == [[3, 4]]


@pytest.mark.parametrize("unit", [None, "adu", "electron/s", "DN", "cts/s", "e/s/pix", "counts/pixel", "cps"])
def test_zero_point_for_counts(tmp_path, unit):
    path = write_rubin(tmp_path / "a.fits", unit=unit, primary_cards={"MAGZERO": 28.9})
    np.testing.assert_allclose(read_rubin(path).data["g"], 10 * pixels(1, sd=2.0), rtol=1e-5)
    given = read_rubin(path, zero_point=31.4)
    np.testing.assert_allclose(given.data["g"], pixels(1, sd=2.0), rtol=1e-5)
    assert given.meta["calibration"]["g"] == "zero_point"


def test_no_unit_at_all_is_njy_in_the_lsst_layout(tmp_path):
    path = write_rubin(tmp_path / "a.fits", unit=None)
    with pytest.warns(JaispWarning, match="nJy assumed"):
        image = read_rubin(path)
    np.testing.assert_array_equal(image.data["g"], pixels(1, sd=2.0))


def test_counts_elsewhere_have_the_zero_point_of_hsc(tmp_path):
    path = tmp_path / "hsc_g.fits"
    image_hdu(pixels(), primary=True, BUNIT="ADU", **wcs_cards()).writeto(path)
    with pytest.warns(JaispWarning, match=r"BUNIT 'ADU' and no zero point; 27.0 assumed"):
        image = read_rubin(path)
    np.testing.assert_allclose(image.data["g"], pixels() * 10 ** (4.4 / 2.5), rtol=1e-5)


@pytest.mark.parametrize(
    ("name", "band"),
    [
        ("rubin_g.fits", "g"),
        ("deepCoadd_calexp_5063_14_i_lsst_cells_v1.fits", "i"),
        ("coadd-y-12.fit", "y"),
        ("HSC-Z_patch.fits", "z"),
        ("RUBIN_U.FITS", "u"),
        ("r.fits", "r"),
    ],
)
def test_band_from_the_file_name(tmp_path, name, band):
    assert read_rubin(write_rubin(tmp_path / name, band_key=None)).bands == (band,)


def test_several_files_in_any_order(tmp_path):
    paths = [write_rubin(tmp_path / f"{band}.fits", band=band) for band in "zug"]
    image = read_rubin(paths)
    assert image.bands == ("u", "g", "z")
    assert read_rubin([str(path) for path in paths], bands=["z", "u"]).bands == ("u", "z")
    assert read_rubin({"i": write_rubin(tmp_path / "x.fits", band_key=None)}).bands == ("i",)


def test_wcs_is_that_of_the_sky_not_of_the_parent_pixels(tmp_path):
    cards = wcs_cards(0.2, angle=31.0)
    image = read_rubin(write_rubin(tmp_path / "a.fits", wcs=cards))
    expected = WCS(fits.Header(cards))
    x, y = np.array([0.0, 12.3, 39.0]), np.array([5.0, 0.7, 39.0])
    np.testing.assert_allclose(
        image.wcs.pixel_to_world_values(x, y), expected.pixel_to_world_values(x, y), rtol=0, atol=1e-10
    )


def test_wcs_with_a_table_of_distortion(tmp_path):
    wcs = WCS(fits.Header(wcs_cards()))
    y, x = np.indices((40, 40), np.float32)
    wcs.cpdis1 = DistortionLookupTable(3 + 0.01 * y, (1, 1), (1, 1), (1, 1))
    wcs.cpdis2 = DistortionLookupTable(-2 + 0.02 * x, (1, 1), (1, 1), (1, 1))
    hdus = wcs.to_fits(relax=True)
    hdus[0].data = pixels()
    hdus[0].header.update({"BUNIT": "nJy", "FILTER": "g"})
    hdus.writeto(tmp_path / "a.fits")
    place = np.array([0.0, 12.3, 39.0]), np.array([5.0, 0.7, 39.0])
    image = read_rubin(tmp_path / "a.fits")
    np.testing.assert_allclose(
        image.wcs.pixel_to_world_values(*place), wcs.pixel_to_world_values(*place), rtol=0, atol=1e-10
    )


def test_ground_bands_of_a_cutout(tmp_path):
    image = read_rubin(write_cutout(tmp_path / "cutout.fits"))
    assert image.bands == ("u", "g")
    assert image.pixel_scale == pytest.approx(0.1)
    np.testing.assert_allclose(image.data["g"], pixels(1, sd=2.0) * 3.6308, rtol=1e-4)
    np.testing.assert_allclose(image.variance["g"], (2 * 3.6308) ** 2, rtol=1e-4)
    assert image.meta["filters"] == {"u": "MEGACAM_U", "g": "HSC_G"}


def test_ground_bands_of_mer(tmp_path):
    """Mosaics of ground bands come with RMS, FLAG and PSF files, as Euclid's own do."""
    flags = np.zeros((40, 40), np.int32)
    flags[5, 6], flags[7, 8] = 1, 1 << 8
    path = write_mer(tmp_path, band="DES-G", rms=3.0, flags=flags)
    for files in (path, sorted(tmp_path.glob("*.fits"))):
        image = read_rubin(files)
        assert image.bands == ("g",)
        assert image.meta["files"] == {"g": str(path)}
        np.testing.assert_allclose(image.variance["g"], (3 * 10 ** (1.4 / 2.5)) ** 2, rtol=1e-5)
        assert np.argwhere(image.mask["g"]).tolist() == [[5, 6]]
        assert image.psf_source["g"] == "given"
    with pytest.raises(FileError, match="is an RMS, FLAG, PSF or background file; give the mosaic"):
        read_rubin(sorted(tmp_path.glob("*-RMS_*.fits")))


def test_two_cameras_in_one_band_are_chosen_by_name(tmp_path):
    path = write_cutout(tmp_path / "cutout.fits", bands=("HSC_G", "DES_G", "DES_R"))
    image = read_rubin(path, bands=["DES_G", "r"])
    assert image.bands == ("g", "r")
    assert image.meta["filters"]["g"] == "DES_G"


@pytest.mark.parametrize("kind", ["SCI", "IMAGE", "BGSUB"])
def test_multi_band_file_with_other_names(tmp_path, kind):
    path = write_cutout(tmp_path / "cutout.fits", bands=("LSST_g", "LSST_r"), kind=kind)
    assert read_rubin(path).bands == ("g", "r")
    assert read_rubin(f"r={path}").bands == ("r",)


@pytest.mark.parametrize(
    ("name", "value"),
    [("STD", 3.0), ("UNCERT", 3.0), ("VAR", 9.0), ("INVVAR", 1 / 9), ("INVVARIANCE", 1 / 9), ("WHT", 1 / 9)],
)
def test_names_of_uncertainties(tmp_path, name, value):
    path = tmp_path / "rubin_g.fits"
    image = image_hdu(pixels(), primary=True, BUNIT="nJy", **wcs_cards())
    fits.HDUList([image, fits.ImageHDU(np.full((40, 40), value), name=name)]).writeto(path)
    np.testing.assert_allclose(read_rubin(path).variance["g"], 9, rtol=1e-5)


@pytest.mark.parametrize(
    ("kind", "value"), [(StdDevUncertainty, 3.0), (VarianceUncertainty, 9.0), (InverseVariance, 1 / 9)]
)
def test_written_ccddata(tmp_path, kind, value):
    mask = np.eye(40, dtype=bool)
    ccd = CCDData(
        pixels(), unit="nJy", uncertainty=kind(np.full((40, 40), value)), mask=mask, psf=psf_image(),
        wcs=WCS(fits.Header(wcs_cards())),
    )  # fmt: skip
    ccd.write(tmp_path / "rubin_g.fits", hdu_psf="PSFIMAGE")
    image = read_rubin(tmp_path / "rubin_g.fits")
    np.testing.assert_allclose(image.variance["g"], 9, rtol=1e-5)
    np.testing.assert_array_equal(image.mask["g"], mask)
    assert image.psf_source["g"] == "given"


def test_bands_said_for_files_whose_names_confuse(tmp_path):
    paths = [write_rubin(tmp_path / name, band_key=None) for name in ("g_r.fits", "image.fits")]
    assert read_rubin(paths[0], bands=["g"]).bands == ("g",)
    image = read_rubin(paths, bands=["z", "i"])
    assert image.bands == ("i", "z")
    assert image.meta["files"]["z"] == str(paths[0])


@pytest.mark.parametrize("band_key", ["BAND", None])
def test_bands_choose_among_those_that_headers_or_names_tell(tmp_path, band_key):
    paths = [
        write_rubin(tmp_path / "lsst_i.fits", band="i", band_key=band_key),
        write_rubin(tmp_path / "lsst_r.fits", band_key=None),
    ]
    files = {"i": str(paths[0]), "r": str(paths[1])}
    assert read_rubin(paths, bands=["r", "i"]).meta["files"] == files
    paths.append(write_rubin(tmp_path / "image.fits", band_key=None))
    assert read_rubin(paths, bands=["i", "r", "z"]).meta["files"] == {**files, "z": str(paths[2])}


def write_cube(path, n=5):
    data = np.stack([pixels(seed) for seed in range(n)])
    image_hdu(data.astype(">f8"), primary=True, **wcs_cards(0.168, system="PC")).writeto(path)
    return data


def test_cube_of_bands(tmp_path):
    data = write_cube(tmp_path / "cube.fits")
    with pytest.warns(JaispWarning) as caught:
        image = read_rubin(tmp_path / "cube.fits")
    assert sorted(str(warning.message).split("; ")[1][:18] for warning in caught) == [
        "27.0 assumed (else",
        "g, r, i, z, y assu",
    ]
    assert image.bands == tuple("grizy")
    np.testing.assert_allclose(image.data["i"], data[2] * 10 ** (4.4 / 2.5), rtol=1e-5)


def test_cube_with_everything_said(tmp_path):
    data = write_cube(tmp_path / "cube.fits", 3)
    fits.PrimaryHDU(np.stack([psf_image(15, sd) for sd in (1.0, 1.5, 2.0)])).writeto(tmp_path / "psf.fits")
    image = read_rubin(
        tmp_path / "cube.fits", bands=["z", "g", "r"], zero_point={"z": 31.4, "g": 31.4, "r": 28.9},
        psf=tmp_path / "psf.fits",
    )  # fmt: skip
    np.testing.assert_allclose(image.data["z"], data[0], rtol=1e-5)
    np.testing.assert_allclose(image.data["r"], 10 * data[2], rtol=1e-5)
    np.testing.assert_allclose(image.psf["z"], psf_image(15, 1.0), rtol=1e-4)
    np.testing.assert_allclose(image.psf["r"], psf_image(15, 2.0), rtol=1e-4)
    same = read_rubin(f"z,g,r={tmp_path / 'cube.fits'}", zero_point=27.0)
    assert same.bands == ("g", "r", "z")


def test_real_calexp(realdata):
    """An ExposureF of the LSST pipelines, 22 HDUs, calibrated by its PhotoCalib table."""
    path = realdata / "headers" / "calexp.fits"
    image = read_rubin(path)
    assert image.bands == ("i",)
    assert image.shape == (32, 64)
    assert image.pixel_scale == pytest.approx(0.158, abs=0.001)
    raw = fits.getdata(path, "IMAGE")
    np.testing.assert_allclose(image.data["i"], raw * 1.99408751, rtol=1e-5)
    # Bit 4 is EDGE in this file, bits 0 and 2 are BAD and INTRP.
    bits = fits.getdata(path, "MASK")
    np.testing.assert_array_equal(image.mask["i"], (bits & 0b10001) != 0)


def test_real_ground_bands(realdata):
    path = realdata / "euclid_q1" / "EUCLJ174752.17+660743.0.fits"
    image = read_rubin(path)
    assert image.bands == ("u", "g", "r", "z")
    assert image.meta["filters"]["z"] == "HSC_Z"
    header = fits.getheader(path, "MEGACAM_R_FLUX")
    for key in ("PC1_1", "PC2_2", "CDELT1", "CDELT2"):
        del header[key]
    expected = WCS(header).pixel_to_world_values([0, 50, 99], [0, 20, 99])
    np.testing.assert_allclose(
        image.wcs.pixel_to_world_values([0, 50, 99], [0, 20, 99]), expected, atol=1e-10
    )


def test_real_hsc_cube(realdata):
    folder = realdata / "hsc_hst"
    image = read_rubin(
        folder / "Cut_HSC1.fits", bands=list("grizy"), zero_point=27.0, psf=folder / "PSF_HSC.fits"
    )
    assert image.pixel_scale == pytest.approx(0.168)
    assert image.shape == (50, 50)
    assert all(psf.shape == (31, 31) for psf in image.psf.values())
