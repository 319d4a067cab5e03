# Licensed under a 3-clause BSD style license - see LICENSE
"""`SurveyImage`: what it accepts, mends and refuses."""

import pickle
import warnings

import astropy.units as u
import numpy as np
import pytest
from astropy.io import fits
from astropy.nddata import (
    CCDData,
    InverseVariance,
    NDData,
    StdDevUncertainty,
    UnknownUncertainty,
    VarianceUncertainty,
)
from astropy.utils.masked import Masked
from astropy.wcs import WCS
from hypothesis import given, settings
from hypothesis import strategies as st

from jaisp.exceptions import BandError, ImageError, WCSError
from jaisp.image import Finding, SurveyImage, moffat_psf
from jaisp.surveys import EUCLID

from .helpers import fails, make_wcs


def test_what_it_holds(make, pixels):
    image = make({"H": 2 * pixels, "VIS": pixels}, meta={"field": "EDF-S"})
    assert image.survey is EUCLID
    assert image.bands == ("VIS", "H")
    assert image.shape == (48, 56)
    assert image.unit == u.nJy
    assert image.pixel_scale == pytest.approx(0.1)
    assert image.meta == {"field": "EDF-S"}
    assert image.findings == []
    assert set(image.data) == set(image.variance) == set(image.psf) == set(image.noise) == {"VIS", "H"}
    for band in image.bands:
        assert image.data[band].dtype == image.variance[band].dtype == image.psf[band].dtype == np.float32
        assert image.mask[band].dtype == bool
        assert image.psf[band].sum() == pytest.approx(1, abs=1e-5)
        assert image.psf_source[band] == "survey"
        assert not image.noise[band].stated
    assert repr(image) == "<SurveyImage euclid VIS,H, 48 x 56 px of 0.100 arcsec>"


def test_input_is_not_changed(make, pixels):
    before = pixels.copy()
    pixels[3, 3] = before[3, 3] = np.nan
    mask, variance = np.zeros(pixels.shape, bool), np.ones(pixels.shape)
    image = make({"VIS": pixels}, mask={"VIS": mask}, variance={"VIS": variance})
    image.data["VIS"][:] = 7
    image.mask["VIS"][:] = True
    np.testing.assert_array_equal(pixels, before)
    assert not mask.any()
    assert (variance == 1).all()


INPUTS = {
    "array": lambda pixels, wcs: pixels,
    "list": lambda pixels, wcs: pixels.tolist(),
    "big-endian": lambda pixels, wcs: pixels.astype(">f4"),
    "double": lambda pixels, wcs: pixels.astype(float),
    "quantity": lambda pixels, wcs: pixels.astype(float) / 1000 * u.uJy,
    "masked array": lambda pixels, wcs: np.ma.array(pixels),
    "masked quantity": lambda pixels, wcs: Masked(pixels * u.nJy, mask=np.zeros(pixels.shape, bool)),
    "NDData": lambda pixels, wcs: NDData(pixels, unit=u.nJy, wcs=wcs),
    "NDData without unit": lambda pixels, wcs: NDData(pixels),
    "CCDData": lambda pixels, wcs: CCDData(pixels / 1e9, unit=u.Jy, wcs=wcs),
    "HDU": lambda pixels, wcs: fits.ImageHDU(pixels, wcs.to_header()),
    "HDU with BUNIT": lambda pixels, wcs: fits.PrimaryHDU(pixels / 1e9, fits.Header({"BUNIT": "Jy"})),
    "HDU with MAGZERO": lambda pixels, wcs: fits.PrimaryHDU(pixels / 1000, fits.Header({"MAGZERO": 23.9})),
    "HDU of counts": lambda pixels, wcs: fits.PrimaryHDU(
        pixels / 1000, fits.Header({"BUNIT": "ADU", "MAGZPT": 23.9})
    ),
    "HDU with FLUXMAG0": lambda pixels, wcs: fits.ImageHDU(
        pixels / 1000, fits.Header({"BUNIT": "electron/s", "FLUXMAG0": 10 ** (23.9 / 2.5)})
    ),
    "HDU per pixel": lambda pixels, wcs: fits.ImageHDU(pixels / 1000, fits.Header({"BUNIT": "uJy/pix"})),
    "NDData per pixel": lambda pixels, wcs: NDData(pixels / 1000, unit=u.uJy / u.pix),
}


@pytest.mark.parametrize("kind", INPUTS)
def test_every_kind_of_input(make, pixels, kind):
    image = make({"VIS": INPUTS[kind](pixels, make_wcs())})
    np.testing.assert_allclose(image.data["VIS"], pixels, rtol=1e-5, atol=1e-7)
    assert image.data["VIS"].dtype.isnative
    assert image.wcs.wcs.crval[0] == pytest.approx(53)


def test_unit_of_arrays_that_state_none(make, pixels):
    image = make(unit="uJy", variance={"VIS": np.full(pixels.shape, 4.0)})
    np.testing.assert_allclose(image.data["VIS"], 1000 * pixels, rtol=1e-5)
    np.testing.assert_allclose(image.variance["VIS"], 4e6, rtol=1e-5)
    stated = make(
        {"VIS": pixels * u.nJy}, unit="uJy", variance={"VIS": np.full(pixels.shape, 4.0) * u.uJy**2}
    )
    np.testing.assert_allclose(stated.data["VIS"], pixels, rtol=1e-5)
    np.testing.assert_allclose(stated.variance["VIS"], 4e6, rtol=1e-5)


@pytest.mark.parametrize(
    "uncertainty",
    [StdDevUncertainty(np.full((48, 56), 3.0)), VarianceUncertainty(np.full((48, 56), 9.0)),
     InverseVariance(np.full((48, 56), 1 / 9.0)), StdDevUncertainty(np.full((48, 56), 3e-9) * u.Jy)],
)  # fmt: skip
def test_uncertainty_mask_and_psf_of_nddata(pixels, uncertainty):
    mask = np.zeros(pixels.shape, bool)
    mask[5, 6] = True
    psf = moffat_psf(2.0, 21)
    data = NDData(pixels, unit=u.nJy, wcs=make_wcs(), uncertainty=uncertainty, mask=mask, psf=psf)
    image = SurveyImage({"VIS": data}, survey="euclid")
    np.testing.assert_allclose(image.variance["VIS"], 9, rtol=1e-5)
    assert np.argwhere(image.mask["VIS"]).tolist() == [[5, 6]]
    assert image.psf_source["VIS"] == "given"
    assert image.noise["VIS"].stated


def test_what_is_no_image(make, pixels):
    fails(ImageError, "data is a ndarray; allowed: a mapping from band name to image", make, pixels)
    fails(ImageError, "data holds no band", make, {})
    fails(
        ImageError,
        "Euclid VIS: image has 3 dimensions, shape (1, 48, 56); allowed: 2-D",
        make,
        {"VIS": pixels[None]},
    )
    fails(ImageError, "image is empty, shape (0, 5)", make, {"VIS": np.zeros((0, 5))})
    fails(ImageError, "pixels are of type complex64; allowed: real numbers", make, {"VIS": pixels * 1j})
    fails(ImageError, "pixels are of type <U", make, {"VIS": np.full((4, 4), "a")})
    fails(ImageError, "holds no image; give one with pixels", make, {"VIS": fits.PrimaryHDU()})


def test_bands(make, pixels):
    fails(
        BandError,
        "unknown Euclid band 'VIZ' (did you mean 'VIS'?); allowed: VIS, Y, J, H",
        make,
        {"VIZ": pixels},
    )
    fails(BandError, "unknown Euclid band 'y'", make, {"y": pixels})
    fails(BandError, "unknown survey 'hst'", make, survey="hst")
    fails(
        BandError, "variance given for band 'Y', which has no data; bands: VIS", make, variance={"Y": pixels}
    )
    fails(BandError, "unknown Euclid band 'g'", make, psf={"g": moffat_psf(2.0, 21)})
    fails(ImageError, "mask is a ndarray; allowed: a mapping", make, mask=np.zeros(pixels.shape, bool))


def test_units(make, pixels):
    fails(
        ImageError,
        "Euclid VIS: unit 'm' is not a flux density; allowed: flux density",
        make,
        {"VIS": pixels * u.m},
    )
    surface = pixels * u.MJy / u.sr
    fails(ImageError, "this is a surface brightness: multiply by the solid angle", make, {"VIS": surface})
    fails(ImageError, "unit 'adu' is not a flux density", make, {"VIS": CCDData(pixels, unit="adu")})
    fails(ImageError, "unit 'furlong' is not a flux density", make, unit="furlong")
    fails(ImageError, "unit 'mag(AB)' is not a flux density", make, unit="mag(AB)")
    counts = fits.PrimaryHDU(pixels, fits.Header({"BUNIT": "adu"}))
    fails(ImageError, "VIS: unit 'adu' needs a zero point, and its header has none", make, {"VIS": counts})
    fails(
        ImageError,
        "VIS variance: unit 'nJy' does not convert to nJy2",
        make,
        variance={"VIS": pixels * u.nJy},
    )
    odd = NDData(pixels, unit=u.nJy, uncertainty=UnknownUncertainty(pixels))
    fails(
        ImageError,
        "uncertainty of type 'unknown' cannot be made a variance; allowed: std",
        make,
        {"VIS": odd},
    )


def test_shapes(make, pixels):
    other = pixels[:-1]
    fails(
        ImageError, "band H has shape (47, 56) but band VIS has (48, 56)", make, {"VIS": pixels, "H": other}
    )
    fails(ImageError, "reproject them first", make, {"VIS": pixels, "H": other})
    fails(ImageError, "VIS variance: shape (47, 56) differs from the image's", make, variance={"VIS": other})
    fails(ImageError, "VIS mask: shape (47, 56) differs", make, mask={"VIS": other > 0})
    fails(
        ImageError, "mask: pixels are of type float64; allowed: bool", make, mask={"VIS": np.zeros((48, 56))}
    )


def test_pixels_that_cannot_be_used(make, pixels):
    variance = np.full(pixels.shape, 4.0)
    pixels[0, :4] = np.nan, np.inf, -np.inf, 0.0
    variance[1, :4] = -1, 0, np.nan, np.inf
    variance[2, :2] = 1e32
    mask = np.zeros(pixels.shape, np.uint8)
    mask[3, 0] = 4
    mask[0, 0] = 1
    image = make({"VIS": pixels}, variance={"VIS": variance}, mask={"VIS": mask})
    expected = [[0, 0], [0, 1], [0, 2], [0, 3], [1, 0], [1, 1], [1, 2], [1, 3], [2, 0], [2, 1], [3, 0]]
    assert np.argwhere(image.mask["VIS"]).tolist() == expected
    assert [str(finding) for finding in image.findings] == [
        "VIS: integer mask: every bit counts as bad; 0.0744 % masked",
        "VIS: 2 pixels not finite; masked",
        "VIS: 4 pixels of negative, zero or infinite variance; masked",
        "VIS: 2 pixels of sentinel variance (no data); masked",
        "VIS: 1 pixels exactly 0 (no data); masked",
    ]
    assert np.isfinite(image.data["VIS"]).all()
    np.testing.assert_array_equal(image.variance["VIS"], np.float32(4))
    assert np.isinf(image.source_variance("VIS")[image.mask["VIS"]]).all()
    assert (image.sky_subtracted("VIS")[image.mask["VIS"]] == 0).all()


def test_bits_of_a_mask_hdu_count_as_in_files(make, pixels):
    """By cards, or by the flags of Euclid; every source is DETECTED."""
    bits = np.zeros(pixels.shape, np.int32)
    bits[1, :4] = 1, 2, 4, 32
    cards = {"MP_BAD": 0, "MP_SAT": 1, "MP_INTRP": 2, "HIERARCH MP_DETECTED": 5}
    planes = fits.ImageHDU(bits, fits.Header(cards), name="MASK")
    i = {"data": {"i": pixels}, "wcs": make_wcs(0.2), "survey": "rubin"}
    image = make(**i, mask={"i": planes})
    assert np.argwhere(image.mask["i"]).tolist() == [[1, 0], [1, 1]]
    assert image.findings == []
    # Without cards, but what is 0 and 1 needs none.
    assert make(**i, mask={"i": fits.ImageHDU((bits > 0).astype(np.uint8))}).mask["i"].sum() == 4
    (told,) = make(**i, mask={"i": fits.ImageHDU(bits)}).findings
    assert told == Finding("i", "mask has no MP_ cards", "the numbers of DP1 assumed", True)
    bits[1, :5] = 1, 2, 1 << 3, 1 << 22, 1 << 10
    for band, bad in (("VIS", [0, 2, 3]), ("H", [0])):
        image = make({band: pixels}, mask={band: fits.PrimaryHDU(bits)})
        assert np.argwhere(image.mask[band]).tolist() == [[1, column] for column in bad]
        assert image.findings == []
    wrong = fits.ImageHDU(bits, fits.Header({"MP_BAD": 70}))
    fails(ImageError, "Rubin i: MP_BAD of its mask is 70; allowed: the", make, **i, mask={"i": wrong})


def test_integers_as_a_mask_without_meaning(make, pixels):
    bits = np.zeros(pixels.shape, np.int32)
    bits[:12] = 32
    data = NDData(pixels, unit=u.nJy, wcs=make_wcs(), mask=bits)
    for image in (make(mask={"VIS": bits}), make({"VIS": data})):
        assert image.mask["VIS"].sum() == 12 * 56
        told = Finding("VIS", "integer mask: every bit counts as bad", "25 % masked", True)
        assert image.findings == [told]
    assert make(mask={"VIS": bits > 0}).findings == make(mask={"VIS": bits // 32}).findings == []


def test_a_band_of_which_nothing_is_left(make, pixels):
    bad = np.full(pixels.shape, np.nan)
    fails(ImageError, "Euclid VIS: no finite pixel in the image (all NaN)", make, {"VIS": bad})
    everywhere = {"VIS": np.ones(pixels.shape, bool)}
    fails(ImageError, "Euclid VIS: every pixel is masked", make, mask=everywhere)
    for value in (0.0, -3.0, np.nan, np.inf, 1e30):
        wrong = {"VIS": np.full(pixels.shape, value)}
        fails(
            ImageError,
            "variance is nowhere positive and finite; give the variance in nJy2",
            make,
            variance=wrong,
        )
    fails(
        ImageError, "every pixel is 5, so that no noise can be measured", make, {"VIS": np.full((9, 9), 5.0)}
    )


def test_wcs(make, pixels):
    fails(WCSError, "Euclid: no WCS; give wcs=", SurveyImage, {"VIS": pixels}, survey="euclid")
    fails(WCSError, "wcs is a str; allowed: astropy.wcs.WCS or a FITS header", make, wcs="wcs")
    fails(WCSError, "no celestial WCS (axis types ''", make, wcs=WCS(naxis=2))
    fails(WCSError, "no celestial WCS in the header", make, wcs=fits.Header({"CRPIX1": 3.0}))
    for scale in (1e-4, 30.0):
        fails(
            WCSError,
            f"wrong pixel scale of {scale:.4g} x {scale:.4g} arcsec; allowed: 0.01",
            make,
            wcs=make_wcs(scale),
        )
    oblong = make_wcs()
    oblong.wcs.cd = oblong.wcs.cd @ np.diag([1.0, 1.5])
    fails(WCSError, "pixels of 0.1 x 0.15 arcsec are not square; reproject", make, wcs=oblong)
    far = make_wcs(2.0, crpix=(5e5, 0))
    far.wcs.ctype = "RA---SIN", "DEC--SIN"
    fails(WCSError, "the WCS gives no sky position for the image's corners", make, wcs=far)


@pytest.mark.parametrize("scale", [0.03, 0.1, 0.168, 0.2, 0.3])
def test_scales_of_other_cameras_are_fine(make, scale):
    assert make(wcs=make_wcs(scale)).pixel_scale == pytest.approx(scale)


def test_wcs_of_a_cube_and_of_a_header(make):
    header = make_wcs().to_header()
    assert make(wcs=header).pixel_scale == pytest.approx(0.1)
    header.update(
        {"WCSAXES": 3, "CTYPE3": "WAVE", "CRVAL3": 1e-6, "CDELT3": 1e-9, "CRPIX3": 1.0, "CUNIT3": "m"}
    )
    assert make(wcs=WCS(header)).wcs.naxis == 2


def test_cd_counts_where_pc_is_there_too(make):
    header = make_wcs(0.1, angle=20).to_header()
    both = fits.Header(header)
    for i, j in ((1, 1), (1, 2), (2, 1), (2, 2)):
        both[f"CD{i}_{j}"] = header[f"PC{i}_{j}"] * header.get("CDELT1", 1.0)
    both["CDELT1"] = both["CDELT2"] = 1.0
    place = np.array([0, 10.0]), np.array([3.0, 47.0])
    expected = make_wcs(0.1, angle=20).pixel_to_world_values(*place)
    np.testing.assert_allclose(make(wcs=both).wcs.pixel_to_world_values(*place), expected, atol=1e-10)
    # So it does in a WCS made of that header, which stays as it is.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        given = WCS(both)
    image = make(wcs=given)
    np.testing.assert_allclose(image.wcs.pixel_to_world_values(*place), expected, atol=1e-10)
    assert not image.wcs.wcs.has_pc()
    assert given.wcs.has_pc()


def test_cd_counts_where_crota_is_there_too(make):
    header = fits.Header({f"CTYPE{i}": name for i, name in ((1, "RA---TAN"), (2, "DEC--TAN"))})
    header.update(
        {"CRVAL1": 53.0, "CRVAL2": -28.0, "CD1_1": -0.1 / 3600, "CD2_2": 0.1 / 3600, "CROTA2": 30.0}
    )
    image = make(wcs=WCS(header))
    assert image.wcs.wcs.has_cd()
    assert not image.wcs.wcs.has_crota()
    assert image.pixel_scale == pytest.approx(0.1)


def test_bands_must_share_the_wcs(make, pixels):
    both = {"VIS": NDData(pixels, wcs=make_wcs()), "H": NDData(pixels, wcs=make_wcs(crpix=(50.001, 50)))}
    assert SurveyImage(both, survey="euclid").bands == ("VIS", "H")
    both["H"] = NDData(pixels, wcs=make_wcs(crpix=(51, 50)))
    fails(
        ImageError,
        "the WCS of band H differs from the image's by 1 px; all bands",
        SurveyImage,
        both,
        survey="euclid",
    )


def test_bands_must_share_the_sky_not_its_numbers(pixels):
    fk5 = make_wcs()
    fk5.wcs.radesys, fk5.wcs.equinox = "FK5", 2000.0
    both = {"VIS": NDData(pixels, wcs=make_wcs()), "H": NDData(pixels, wcs=fk5)}
    fails(
        ImageError,
        "the WCS of band H differs from the image's by 0.153 px",
        SurveyImage,
        both,
        survey="euclid",
    )


@pytest.mark.parametrize("unit", ["nJy2", "uJy2", "nJy", None])
def test_unit_of_a_variance_hdu(make, pixels, unit):
    """Its own where it is a flux density's square; else that of the data, squared."""
    variance = fits.ImageHDU(np.full(pixels.shape, 4.0))
    if unit is not None:
        variance.header["BUNIT"] = unit
    data = fits.ImageHDU(pixels / 1000, make_wcs().to_header())
    data.header["BUNIT"] = "uJy"
    image = make({"VIS": data}, variance={"VIS": variance})
    expected = {"nJy2": 4.0}.get(unit, 4e6)
    np.testing.assert_allclose(image.variance["VIS"], expected, rtol=1e-5)


def test_select_shares_and_keeps_what_was_worked_out(make, pixels):
    image = make({"VIS": pixels, "Y": pixels + 1, "H": 2 * pixels})
    noise = image.noise["H"]
    part = image.select(["H", "VIS"])
    assert part.bands == ("VIS", "H")
    assert part.data["H"] is image.data["H"]
    assert part.noise["H"] is noise
    assert "Y" not in part.noise
    assert image.select("Y").bands == ("Y",)
    fails(BandError, "band 'J' is not in this image; allowed: VIS, Y, H", image.select, ["J"])
    fails(BandError, "no band selected", image.select, [])


def test_to_ask_for_a_band_measures_nothing(make):
    image = make()
    assert "VIS" in image.noise
    assert "Y" not in image.noise
    assert not image.noise._values


def test_values_beyond_float32_are_masked(make, pixels):
    large = pixels.astype(float)
    large[3, 5] = 1e39
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        image = make({"VIS": large})
    assert image.mask["VIS"][3, 5]
    assert [finding.what for finding in image.findings] == ["1 pixels not finite"]


def test_pickle(make):
    image = make()
    image.noise["VIS"]
    again = pickle.loads(pickle.dumps(image))
    assert again.noise["VIS"].scale == image.noise["VIS"].scale
    np.testing.assert_array_equal(again.sky_subtracted("VIS"), image.sky_subtracted("VIS"))


def test_source_variance(make, pixels):
    image = make(variance={"VIS": np.full(pixels.shape, 4.0)})
    expected = 4 * image.noise["VIS"].scale ** 2
    np.testing.assert_allclose(image.source_variance("VIS"), expected, rtol=1e-5)


def test_band_order_does_not_matter(pixels):
    bands = {"VIS": pixels, "Y": pixels * 2 + 1, "H": pixels[::-1]}
    forward = SurveyImage(bands, make_wcs(), survey="euclid")
    backward = SurveyImage(dict(reversed(bands.items())), make_wcs(), survey="euclid")
    assert forward.bands == backward.bands
    for band in bands:
        np.testing.assert_array_equal(forward.sky_subtracted(band), backward.sky_subtracted(band))
        assert forward.noise[band].scale == backward.noise[band].scale


@settings(max_examples=40, deadline=None)
@given(
    kind=st.sampled_from(["nan", "inf", "zero variance", "negative variance", "sentinel", "flag"]),
    part=st.floats(0.01, 0.9),
    seed=st.integers(0, 1000),
)
def test_masked_pixels_never_carry_weight(kind, part, seed):
    """Whatever is wrong with whichever pixels: finite data, finite variance, no weight where masked."""
    rng = np.random.default_rng(seed)
    data, variance = rng.normal(size=(24, 31)), np.full((24, 31), 1.7)
    mask = np.zeros(data.shape, bool)
    bad = rng.random(data.shape) < part
    bad[0, :2] = False, True
    if kind in ("nan", "inf"):
        data[bad] = float(kind)
    elif kind == "flag":
        mask[bad] = True
    else:
        variance[bad] = {"zero variance": 0, "negative variance": -2, "sentinel": 1e33}[kind]
    image = SurveyImage({"J": data}, make_wcs(), survey="euclid", variance={"J": variance}, mask={"J": mask})
    assert bool(image.findings) is (kind != "flag")
    np.testing.assert_array_equal(image.mask["J"], bad)
    assert np.isfinite(image.data["J"]).all()
    assert (image.variance["J"] > 0).all()
    weight = 1 / image.source_variance("J")
    assert (weight[bad] == 0).all()
    assert (weight[~bad] > 0).all()


def test_pixels_are_copied_unless_told_otherwise():
    pixels = np.random.default_rng(3).normal(size=(64, 64)).astype(np.float32)
    pixels[3, 4] = np.nan
    assert SurveyImage({"VIS": pixels}, make_wcs(), survey="euclid").data["VIS"] is not pixels
    assert np.isnan(pixels[3, 4])
    shared = SurveyImage({"VIS": pixels}, make_wcs(), survey="euclid", copy=False)
    assert np.shares_memory(shared.data["VIS"], pixels)
    assert shared.mask["VIS"][3, 4]
    # What is not in nJy is converted, and so never shared.
    converted = SurveyImage({"VIS": pixels}, make_wcs(), survey="euclid", unit="uJy", copy=False)
    assert not np.shares_memory(converted.data["VIS"], pixels)


def test_box_of_the_pixels_with_data():
    mask = np.ones((50, 60), bool)
    mask[10:31, 20] = mask[12, 20:41] = False
    image = SurveyImage({"VIS": np.ones(mask.shape)}, make_wcs(), survey="euclid", mask={"VIS": mask},
                        variance={"VIS": np.ones(mask.shape)})  # fmt: skip
    assert image.data_box() == np.s_[10:31, 20:41]
