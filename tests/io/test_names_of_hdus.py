# Licensed under a 3-clause BSD style license - see LICENSE
"""What the names of HDUs tell: which image is the sky, and which RMS, mask and PSF belong to it."""

import re

import numpy as np
import pytest
from astropy.io import fits

from jaisp.exceptions import JaispWarning
from jaisp.io import read_euclid, read_rubin

from ._layouts import image_hdu, pixels, psf_image, wcs_cards, write_psf_grid, write_rubin

FACTOR = 10 ** ((31.4 - 24.6) / 2.5)


def write_bands(path, names, *, variance=None, versions=False, cards=None):
    """A file of images, named by astropy (in upper case), each with ``seed`` its number, and a variance."""
    hdus = [fits.PrimaryHDU()]
    for number, name in enumerate(names):
        own = {} if cards is None else {"FILTER": cards[number]}
        hdus.append(image_hdu(pixels(number), name, BUNIT="nJy", **own, **wcs_cards()))
        if variance:
            array = np.full((40, 40), number + 1.0, np.float32)
            hdus.append(fits.ImageHDU(array, name=variance.format(name)))
        if versions:
            for hdu in hdus[-1 - bool(variance) :]:
                hdu.ver = number + 1
    fits.HDUList(hdus).writeto(path)
    return path


def check_bands(image, *, variance=True):
    assert image.bands == tuple("ugrizy")
    for number, band in enumerate("ugrizy"):
        np.testing.assert_array_equal(image.data[band], pixels(number))
        if variance:
            np.testing.assert_array_equal(image.variance[band], np.float32(number + 1))


def sky(name=None, *, seed=0, filter_name="VIS", zero_point=24.6, primary=False):
    cards = {"FILTER": filter_name, "MAGZERO": zero_point, **wcs_cards(0.1)}
    return image_hdu(pixels(seed), name, primary=primary, **cards)


def planes(rms, flag, psf, *, value=2.0):
    """RMS, mask and PSF of these names."""
    return [
        image_hdu(np.full((40, 40), value, np.float32), rms),
        image_hdu(np.eye(40, dtype=np.int32), flag),
        image_hdu(psf_image(), psf),
    ]


def read(path, hdus, reader=read_euclid):
    if not isinstance(hdus[0], fits.PrimaryHDU):
        hdus = [fits.PrimaryHDU(), *hdus]
    fits.HDUList(hdus).writeto(path)
    return reader(path)


def check(image, band, *, rms=2.0, factor=FACTOR, seed=0):
    """The image is that of the sky, with its RMS, mask and PSF."""
    np.testing.assert_allclose(image.data[band], pixels(seed) * factor, rtol=1e-5)
    np.testing.assert_allclose(image.variance[band], (rms * factor) ** 2, rtol=1e-5)
    assert image.mask[band].sum() == 40
    assert image.psf_source[band] == "given"


@pytest.mark.parametrize("name", [None, "SCI"])
@pytest.mark.parametrize("kind", ["IMAGE", "image", "DATA", "MAP"])
def test_images_of_something_else_than_the_sky(tmp_path, name, kind):
    """RMS_IMAGE is an RMS, not the image of a band RMS."""
    hdus = [sky(name, primary=name is None), *planes(f"RMS_{kind}", f"MASK_{kind}", f"PSF {kind}")]
    check(read(tmp_path / "a.fits", hdus), "VIS")


@pytest.mark.parametrize("reader", [read_euclid, read_rubin])
def test_images_of_something_else_in_the_headers_of_all(tmp_path, reader):
    """PRIMARY tells the band of all the HDUs."""
    band, zero_point = ("VIS", 24.6) if reader == read_euclid else ("i", 31.4)
    primary = sky(filter_name=band, zero_point=zero_point, primary=True)
    image = read(tmp_path / "a.fits", [primary, *planes("RMS_IMAGE", "MASK_IMAGE", "PSF_IMAGE")], reader)
    check(image, band, factor=10 ** ((31.4 - zero_point) / 2.5))


def test_mosaic_with_its_psf_grid_in_one_file(tmp_path):
    write_psf_grid(tmp_path / "grid.fits", wcs_cards(0.1))
    with fits.open(tmp_path / "grid.fits") as grid:
        image = read(tmp_path / "a.fits", [sky(primary=True), *grid[1:]])
    np.testing.assert_allclose(image.data["VIS"], pixels() * FACTOR, rtol=1e-5)
    np.testing.assert_allclose(image.psf["VIS"], psf_image(21, 0.9), atol=1e-4)


@pytest.mark.parametrize("name", ["MODEL_IMAGE", "BKG_FLUX", "SEGMENTATION_IMAGE", "VIS_MODEL_IMAGE"])
@pytest.mark.parametrize("image", [None, "SCI", "VIS_FLUX"])
def test_images_whose_names_tell_no_band(tmp_path, name, image):
    """With the FILTER of the sky they are none beside it, and are told."""
    other = image_hdu(np.ones((40, 40)), name, FILTER="VIS")
    with pytest.warns(JaispWarning, match=rf"not used.*\({name}\)"):
        found = read(tmp_path / "a.fits", [sky(image, primary=image is None), other])
    np.testing.assert_allclose(found.data["VIS"], pixels() * FACTOR, rtol=1e-5)


@pytest.mark.parametrize("name", ["COADD_IMAGE", None])
@pytest.mark.parametrize("filter_name", ["VIS", None])
def test_image_behind_a_preview_without_a_name(tmp_path, name, filter_name):
    preview = image_hdu(np.ones((9, 9)), primary=True, FILTER=filter_name)
    image = read(tmp_path / "a.fits", [preview, sky(name)])
    np.testing.assert_allclose(image.data["VIS"], pixels() * FACTOR, rtol=1e-5)


@pytest.mark.parametrize(
    "names",
    [
        ("SCI", "VIS_RMS", "VIS_FLAG", "VIS_PSF"),
        ("SCI", "RMS_VIS", "FLAG_VIS", "PSF_VIS"),
        ("VIS_SCI", "IE_RMS", "Euclid_VIS_FLAG", "VIS_PSF_IMAGE"),
        (None, "RMS", "VIS_FLAG", "PSF"),
        ("FLUX", "FLUX_ERR", "FLUX_MASK", "FLUX_PSF"),
        ("VIS_FLUX", "VIS_FLUX_ERR", "VIS_FLUX_MASK", "VIS_PSF"),
        ("SCI", "STDDEV", "BPM", "PSF_MODEL"),
        ("SCI", "UNCERTAINTY", "QUALITY", "PSF_IMAGE"),
        ("SCI", "RMS_MAP", "BADPIX", "psf_VIS"),
    ],
)
def test_planes_are_found_by_what_their_names_mean(tmp_path, names):
    check(read(tmp_path / "a.fits", [sky(names[0]), *planes(*names[1:])]), "VIS")


@pytest.mark.parametrize("name", ["WGT", "WEIGHTS", "WEIGHT_MAP", "WEIGHT_IMAGE", "IVM", "INVVAR"])
def test_names_of_weights(tmp_path, name):
    """As of DES tiles: SCI, MSK, WGT."""
    image = sky("SCI", filter_name="r DECam SDSS c0002 6415.0 1480.0", zero_point=31.4)
    hdus = [image, *planes(name, "MSK", "r_psf", value=0.25)]
    check(read(tmp_path / "a.fits", hdus, read_rubin), "r", factor=1)


def test_planes_of_another_band_are_not_taken(tmp_path):
    with pytest.warns(JaispWarning, match=r"not used.*: HDU 2 \(Y_RMS\), 3 \(Y_FLAG\), 4 \(Y_PSF\); names"):
        image = read(tmp_path / "a.fits", [sky("SCI"), *planes("Y_RMS", "Y_FLAG", "Y_PSF")])
    assert not image.noise["VIS"].stated
    assert not image.mask["VIS"].any()


@pytest.mark.parametrize("names", [("VIS", "NIR_H"), (None, None), ("VIS_SCI", "H_SCI")])
@pytest.mark.parametrize("psf_first", [False, True])
def test_planes_that_follow_their_images(tmp_path, names, psf_first):
    hdus = []
    for number, (name, band) in enumerate(zip(names, ("VIS", "NIR_H"), strict=True)):
        own = planes("RMS", "FLAG", "PSF", value=2.0 + number)
        hdus += [sky(name, seed=number, filter_name=band), *(own[::-1] if psf_first else own)]
    image = read(tmp_path / "a.fits", hdus)
    check(image, "VIS")
    check(image, "H", rms=3.0, seed=1)


@pytest.mark.parametrize("order", ["IRPI", "IIRP", "RIPI", "IRIRP", "IPRRI"])
def test_planes_of_which_it_is_not_plain_whose_they_are(tmp_path, order):
    """Nothing is guessed: of two images the planes of one may be missing."""
    images = iter([sky("VIS"), sky("NIR_H", filter_name="NIR_H", zero_point=29.9)])
    rms, _, psf = planes("RMS", "FLAG", "PSF")
    hdus = [{"I": lambda: next(images), "R": rms.copy, "P": psf.copy}[letter]() for letter in order]
    with pytest.warns(JaispWarning, match=r"not used, as nothing tells what it is or of which image: HDU"):
        image = read(tmp_path / "a.fits", hdus)
    assert not image.noise["VIS"].stated
    assert not image.noise["H"].stated


@pytest.mark.parametrize("name", ["PSF_OF_STARS", "GRID-PSF-VIS"])
def test_psfs_of_any_size_that_are_not_understood_are_told(tmp_path, name):
    with pytest.warns(JaispWarning, match=rf"not used.*HDU 2 \({name}\)"):
        assert read(tmp_path / "a.fits", [sky("SCI"), image_hdu(psf_image(), name)]).bands == ("VIS",)


def test_known_parts_that_are_no_planes_are_not_told(tmp_path):
    """Coadds of cells hold them, each of the size of the image: they would be told of every file."""
    names = ("MASK_FRACTIONS/REJECTED", "NOISE_REALIZATIONS/0", "WCSDVARR")
    parts = [image_hdu(pixels(), name) for name in names]
    hdus = [sky("IMAGE", filter_name="i", zero_point=31.4), *planes("RMS", "MASK", "PSF"), *parts]
    check(read(tmp_path / "a.fits", hdus, read_rubin), "i", factor=1)


@pytest.mark.parametrize("name", ["NOISE", "VIS_MODEL", None])
def test_images_that_are_not_understood_are_told(tmp_path, name):
    path = tmp_path / "a.fits"
    other, small = image_hdu(np.ones((40, 40)), name), image_hdu(np.ones((8, 8)), "PREVIEW")
    said = (
        f"{path}: not used, as nothing tells what it is or of which image: HDU 2 ({name or 'unnamed'}); names"
    )
    with pytest.warns(JaispWarning, match=re.escape(said)) as caught:
        read(path, [sky("SCI"), other, small])
    assert len(caught) == 1


def test_hdus_named_by_bands(tmp_path):
    """Y among g and i is Rubin's, though NISP's by itself: astropy writes names in upper case."""
    path = write_bands(tmp_path / "a.fits", "ugrizy", variance="{}_VARIANCE")
    assert fits.getval(path, "EXTNAME", ext=-2) == "Y"
    check_bands(read_rubin(path))
    assert read_rubin(f"y={path}").bands == ("y",)
    path = write_bands(tmp_path / "rubin_y.fits", "y")
    assert read_rubin(path).bands == ("y",)
    path = write_bands(tmp_path / "b.fits", "y")
    assert read_rubin(path, bands=["y"]).bands == read_rubin(f"y={path}").bands == ("y",)


def test_kind_before_band(tmp_path):
    path = tmp_path / "a.fits"
    hdus = [fits.PrimaryHDU()]
    for number, band in enumerate("ugrizy"):
        hdus.append(image_hdu(pixels(number), f"IMAGE_{band}", BUNIT="nJy", **wcs_cards()))
        hdus.append(fits.ImageHDU(np.full((40, 40), number + 1.0), name=f"VARIANCE_{band}"))
        hdus.append(fits.ImageHDU(psf_image(), name=f"PSF {band}"))
    fits.HDUList(hdus).writeto(path)
    image = read_rubin(path)
    check_bands(image)
    assert {image.psf_source[band] for band in image.bands} == {"given"}


def test_images_without_names_that_say_their_bands(tmp_path):
    path = write_bands(tmp_path / "a.fits", [None] * 6, cards=[f"LSST_{band}" for band in "ugrizy"])
    check_bands(read_rubin(path), variance=False)
    assert read_rubin(f"g,i={path}").bands == ("g", "i")
    # A second image of the same band, as an unnamed map of its errors is, is none of its own.
    path = write_bands(tmp_path / "b.fits", [None] * 2, cards=["g", "g"])
    with pytest.warns(JaispWarning, match=r"b.fits: not used.*HDU 2 \(unnamed\)"):
        np.testing.assert_array_equal(read_rubin(path).data["g"], pixels(0))


@pytest.mark.parametrize("versions", [True, False])
def test_one_name_for_the_images_of_all_bands(tmp_path, versions):
    path = write_bands(
        tmp_path / "a.fits", ["IMAGE"] * 6, variance="VARIANCE", versions=versions, cards="ugrizy"
    )
    check_bands(read_rubin(path))


def test_planes_beside_an_image_named_by_its_band(tmp_path):
    path = write_rubin(tmp_path / "a.fits", band_key=None, bits=np.eye(40, dtype=np.int32))
    fits.setval(path, "EXTNAME", value="g", ext=1)
    image = read_rubin(path)
    assert image.bands == ("g",)
    assert image.psf_source["g"] == "given"
    assert image.mask["g"].sum() == 40
    np.testing.assert_array_equal(image.variance["g"], np.float32(4))


@pytest.mark.parametrize("name", ["COMPRESSED_IMAGE", "COADD_IMAGE", "coadd", None])
def test_names_of_hdus_that_tell_no_band(tmp_path, name):
    for path, cards in ((tmp_path / "rubin_i.fits", {}), (tmp_path / "x.fits", {"FILTER": "HSC-I"})):
        hdu = image_hdu(pixels(), name, BUNIT="nJy", **cards, **wcs_cards())
        fits.HDUList([fits.PrimaryHDU(), hdu]).writeto(path)
        assert read_rubin(path).bands == ("i",)


def test_image_without_a_name_among_named_planes(tmp_path):
    path = tmp_path / "a.fits"
    image = image_hdu(pixels(), primary=True, BUNIT="nJy", **wcs_cards())
    fits.HDUList([image, fits.ImageHDU(np.full((40, 40), 9.0), name="LSST_I_VARIANCE")]).writeto(path)
    image = read_rubin(path)
    assert image.bands == ("i",)
    np.testing.assert_array_equal(image.variance["i"], np.float32(9))
