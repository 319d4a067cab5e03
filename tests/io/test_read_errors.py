# Licensed under a 3-clause BSD style license - see LICENSE
"""What the readers say of files that cannot be read: one line that names the file and tells what to do."""

import bz2
import gzip
import re

import numpy as np
import pytest
from astropy.coordinates import SkyCoord
from astropy.io import fits
from astropy.nddata import NDData
from astropy.wcs import WCS

from jaisp.exceptions import BandError, FileError, ImageError, JaispError, JaispWarning, WCSError
from jaisp.image import SurveyImage
from jaisp.io import align, read_euclid, read_rubin
from jaisp.io._bands import band_of_file, band_of_label
from jaisp.surveys import EUCLID, RUBIN

from ._layouts import (
    image_hdu,
    pixels,
    psf_image,
    wcs_cards,
    write_cutout,
    write_euclid,
    write_mer,
    write_rubin,
)


def fails(error, message, read, *args, **kwargs):
    with pytest.raises(error, match=re.escape(message)) as caught:
        read(*args, **kwargs)
    assert "\n" not in str(caught.value)
    assert isinstance(caught.value, JaispError)


def test_files_that_are_none(tmp_path):
    fails(FileError, "nowhere.fits: no such file", read_rubin, tmp_path / "nowhere.fits")
    fails(FileError, "is a folder; give FITS files", read_euclid, tmp_path)
    fails(FileError, "no file given", read_rubin, [])
    fails(FileError, "files is a int; give a path", read_rubin, 3)
    fails(
        FileError, "files holds a ndarray; give paths, or make a SurveyImage", read_rubin, [np.ones((3, 3))]
    )
    (tmp_path / "a.fits").write_text("x,y\n1,2\n")
    fails(FileError, "a.fits: not a readable FITS file", read_rubin, tmp_path / "a.fits")
    fails(FileError, "); give a FITS file, or copy or download it again", read_rubin, tmp_path / "a.fits")
    (tmp_path / "b.fits").touch()
    fails(FileError, "b.fits: not a readable FITS file", read_rubin, tmp_path / "b.fits")


def test_truncated_files(tmp_path):
    whole = write_rubin(tmp_path / "rubin_g.fits").read_bytes()
    for part in (0.2, 0.5, 0.9):
        path = tmp_path / f"part_{part}_g.fits"
        path.write_bytes(whole[: int(part * len(whole))])
        fails(FileError, f"{path}: ", read_rubin, path)
    path.write_bytes(whole[: 2880 * 3 + 100])
    fails(FileError, "truncated", read_rubin, path)


@pytest.mark.parametrize("module", [gzip, bz2])
@pytest.mark.parametrize("part", [0.3, 0.9, 0.999])
def test_truncated_compressed_files(tmp_path, module, part):
    """The HDUs before the end are no image without its mask and variance."""
    whole = write_rubin(tmp_path / "rubin_g.fits").read_bytes()
    packed = module.compress(whole)
    path = tmp_path / f"part_g.fits.{'gz' if module is gzip else 'bz2'}"
    path.write_bytes(packed[: int(part * len(packed))])
    fails(FileError, f"{path}: ", read_rubin, path)


def test_corrupted_compressed_file(tmp_path):
    packed = bytearray(gzip.compress(write_rubin(tmp_path / "rubin_g.fits").read_bytes()))
    packed[len(packed) // 2 :: 7] = bytes(len(packed[len(packed) // 2 :: 7]))
    path = tmp_path / "bad_g.fits.gz"
    path.write_bytes(packed)
    fails(FileError, f"{path}: ", read_rubin, path)


def test_no_wcs(tmp_path):
    path = tmp_path / "VIS.fits"
    image_hdu(pixels(), primary=True, MAGZERO=24.6).writeto(path)
    fails(WCSError, "VIS.fits: no celestial WCS in its header; it needs CTYPE1", read_euclid, path)
    cards = {**wcs_cards(0.1), "CTYPE1": "LINEAR", "CTYPE2": "LINEAR"}
    fails(WCSError, "no celestial WCS", read_euclid, write_euclid(tmp_path / "b.fits", wcs=cards))


def test_wcs_card_that_is_no_number(tmp_path):
    path = write_euclid(tmp_path / "a.fits", wcs={**wcs_cards(0.1), "CRVAL1": "abc"})
    fails(WCSError, "a.fits: CRVAL1 of its header is 'abc'; allowed: a number", read_euclid, path)


def test_wrong_pixel_scale(tmp_path):
    path = write_euclid(tmp_path / "a.fits", wcs=wcs_cards(360.0))
    fails(WCSError, "wrong pixel scale of 360 x 360 arcsec; allowed: 0.01 to 2.0 arcsec", read_euclid, path)


def test_the_other_surveys_files(tmp_path):
    vis = write_euclid(tmp_path / "a.fits")
    fails(BandError, "holds Euclid band VIS and no Rubin band; read it with read_euclid", read_rubin, vis)
    rubin = write_rubin(tmp_path / "b.fits", band="LSST_i")
    fails(
        BandError, "holds Rubin band LSST_i and no Euclid band; read it with read_rubin", read_euclid, rubin
    )
    cutout = write_cutout(tmp_path / "c.fits", bands=("VIS", "NIR_Y"))
    fails(BandError, "read it with read_euclid", read_rubin, cutout)
    # Nor is it passed over among files that are right.
    fails(BandError, f"{rubin}: holds Rubin band LSST_i", read_euclid, [vis, rubin])
    # One letter, two bands: NISP writes Y, Rubin y.
    path = write_rubin(tmp_path / "d.fits", band="Y")
    fails(BandError, "holds Euclid band Y and no Rubin band", read_rubin, path)
    path = write_rubin(tmp_path / "e.fits", band="y")
    fails(BandError, "holds Rubin band y and no Euclid band", read_euclid, path)


def test_y_among_the_bands_of_both_surveys(tmp_path):
    path = tmp_path / "all.fits"
    names = ("g", "y", "VIS", "J")
    images = [image_hdu(pixels(), name, BUNIT="nJy", **wcs_cards(0.1)) for name in names]
    hdus = [fits.PrimaryHDU(), *images]
    fits.HDUList(hdus).writeto(path)
    said = r"all.fits\[2\]: is named Y, taken for NISP's; for Rubin's y give g,y=all.fits"
    with pytest.warns(JaispWarning, match=said):
        assert read_rubin(path).bands == ("g",)
    assert read_rubin(f"g={path}").bands == ("g",)
    assert read_rubin(path, bands=["g", "y"]).bands == ("g", "y")
    assert read_euclid(path).bands == ("VIS", "Y", "J")
    # Two of that name are one too many.
    fits.append(path, pixels(), hdus[2].header)
    fails(BandError, "Euclid band Y given twice", read_euclid, path)
    fails(BandError, "more than one image is named Y; for Rubin's y give g,y=all.fits", read_rubin, path)
    # Beside Rubin's alone it is not NISP's.
    fits.HDUList(hdus[:3]).writeto(tmp_path / "rubin.fits")
    fails(BandError, "holds Rubin band G and no Euclid band", read_euclid, tmp_path / "rubin.fits")


def test_unknown_bands(tmp_path):
    path = write_rubin(tmp_path / "image.fits", band_key=None)
    fails(BandError, "image.fits: cannot tell its Rubin band from header or file name", read_rubin, path)
    path = write_rubin(tmp_path / "other.fits", band="N921")
    fails(BandError, "FILTER is 'N921'; give bands=[...] or u=other.fits; allowed: u, g, r", read_rubin, path)
    path = write_rubin(tmp_path / "g_r.fits", band_key=None)
    fails(BandError, "its name could mean band g or r", read_rubin, path)
    fails(BandError, "r=FILE", read_rubin, write_rubin(tmp_path / "a_g.fits", band_key=None), bands=["r"])
    path = write_rubin(tmp_path / "rubin_g.fits")
    fails(BandError, "unknown Rubin band 'vis'", read_rubin, path, bands=["vis"])
    fails(BandError, "band 'r' is not in the Rubin files given; they hold g", read_rubin, path, bands=["r"])
    fails(BandError, "unknown Rubin band 'q'", read_rubin, f"q={path}")
    path = write_cutout(tmp_path / "c.fits", bands=("SPITZER_1", "SPITZER_2"))
    fails(BandError, "no Rubin band among SPITZER_1, SPITZER_2; allowed: u, g, r", read_rubin, path)


@pytest.mark.parametrize("name", ["NB0816", "F606W"])
def test_a_filter_that_is_stated_counts_before_the_name_of_the_file(tmp_path, name):
    path = write_rubin(tmp_path / "cosmos_g.fits", band=name, band_key="FILTER")
    fails(BandError, f"cannot tell its Rubin band: FILTER is {name!r}; give bands=", read_rubin, path)
    assert read_rubin(path, bands=["r"]).bands == read_rubin(f"r={path}").bands == ("r",)
    path = write_euclid(tmp_path / "udf_h.fits", filter_name="F160W")
    fails(BandError, "cannot tell its Euclid band: FILTER is 'F160W'; give bands=", read_euclid, path)


@pytest.mark.parametrize("name", ["none", "CLEAR1L", "N/A", 3])
def test_a_card_that_states_no_filter(tmp_path, name):
    path = write_rubin(tmp_path / "cosmos_g.fits", band=name, band_key="FILTER")
    assert read_rubin(path).bands == ("g",)


def test_bands_in_another_order_than_the_images(tmp_path):
    paths = [write_rubin(tmp_path / "a.fits", band="i"), write_rubin(tmp_path / "b.fits", band_key=None)]
    message = f"{paths[0]}: is of band i, but bands= has 'r' in its place; give bands= in the order"
    fails(BandError, message, read_rubin, paths, bands=["r", "i"])


@pytest.mark.parametrize("bands", [3, [], ()])
def test_bands_that_are_none(tmp_path, bands):
    path = write_rubin(tmp_path / "a.fits")
    fails(
        BandError, f"bands={bands} names no band; allowed: a list of u, g, r", read_rubin, path, bands=bands
    )


def test_bands_given_twice(tmp_path):
    one, two = (write_rubin(tmp_path / name, band="g") for name in ("one.fits", "two.fits"))
    fails(BandError, f"Rubin band g given twice: {one} and {two}", read_rubin, [one, two])
    path = write_cutout(tmp_path / "c.fits", bands=("HSC_G", "DES_G"))
    fails(BandError, "Rubin band g given twice", read_rubin, path)


def test_cubes_of_unknown_bands(tmp_path):
    path = tmp_path / "cube.fits"
    image_hdu(np.zeros((3, 8, 8)), primary=True, **wcs_cards()).writeto(path)
    fails(
        BandError, "a cube of 3 images does not say their bands; give bands=[...] with 3 of", read_rubin, path
    )
    fails(BandError, "2 bands named for 3 images: g, r", read_rubin, f"g,r={path}")


def test_bands_on_different_grids(tmp_path):
    one = write_rubin(tmp_path / "one.fits", band="g")
    small = write_rubin(tmp_path / "small.fits", band="r", data=pixels(shape=(30, 40)))
    message = f"{small}: band r has shape (30, 40), band g of {one} has (40, 40)"
    fails(ImageError, message, read_rubin, [one, small])
    turned = write_rubin(tmp_path / "turned.fits", band="i", wcs=wcs_cards(angle=3))
    fails(
        ImageError,
        f"{turned}: the WCS of band i differs from that of band g in {one}",
        read_rubin,
        [one, turned],
    )


def test_bands_in_different_frames(tmp_path):
    """The same numbers in ICRS and FK5 are not the same place; the same place in two frames is one grid."""
    cards = wcs_cards(crval=(150.1, 2.2))
    icrs = write_rubin(tmp_path / "icrs.fits", band="g", wcs=cards)
    fk5 = write_rubin(tmp_path / "fk5.fits", band="r", wcs={**cards, "RADESYS": "FK5", "EQUINOX": 2000.0})
    fails(ImageError, f"{fk5}: the WCS of band r differs from that of band g", read_rubin, [icrs, fk5])
    centre = SkyCoord(150.1, 2.2, unit="deg").fk5
    same = wcs_cards(crval=(centre.ra.deg, centre.dec.deg))
    same = write_rubin(tmp_path / "same.fits", band="r", wcs={**same, "RADESYS": "FK5", "EQUINOX": 2000.0})
    assert read_rubin([icrs, same]).bands == ("g", "r")


def test_useless_pixels(tmp_path):
    path = write_rubin(tmp_path / "nan.fits", data=np.full((40, 40), np.nan, np.float32))
    fails(ImageError, "Rubin g: no finite pixel in the image (all NaN)", read_rubin, path)
    path = write_rubin(tmp_path / "var.fits", variance=-1.0)
    fails(ImageError, "Rubin g: variance is nowhere positive and finite", read_rubin, path)
    path = write_euclid(tmp_path / "rms.fits", rms=1e16)
    fails(ImageError, "Euclid VIS: variance is nowhere positive and finite", read_euclid, path)
    bits = np.ones((40, 40), np.int32)
    path = write_rubin(tmp_path / "bad.fits", bits=bits)
    fails(ImageError, "Rubin g: every pixel is masked", read_rubin, path)


def test_bands_without_a_usable_pixel_are_left_out(tmp_path):
    good = write_rubin(tmp_path / "rubin_g.fits")
    empty = [
        write_rubin(tmp_path / "rubin_u.fits", band="u", data=np.full((40, 40), np.nan, np.float32)),
        write_rubin(tmp_path / "rubin_r.fits", band="r", variance=-1.0),
        write_rubin(tmp_path / "rubin_i.fits", band="i", bits=np.ones((40, 40), np.int32)),
        write_rubin(tmp_path / "rubin_z.fits", band="z", data=np.zeros((40, 40), np.float32)),
    ]
    with pytest.warns(JaispWarning) as caught:
        image = read_rubin([empty[0], good, *empty[1:]])
    assert image.bands == ("g",)
    assert [str(warning.message) for warning in caught] == [
        f"{path}: band {path.stem[-1]} has no usable pixel; left out" for path in empty
    ]
    assert list(image.meta["files"]) == list(image.meta["calibration"]) == ["g"]
    np.testing.assert_array_equal(image.data["g"], read_rubin(good).data["g"])
    # Of those that have none the first tells why.
    fails(ImageError, "Rubin u: no finite pixel in the image (all NaN)", read_rubin, empty)


@pytest.mark.parametrize(("said", "frame"), [(" icrs", "icrs"), ("fk5 ", "fk5"), ("J2000", "fk5")])
def test_spellings_of_frames(tmp_path, said, frame):
    path = write_rubin(tmp_path / "a.fits", wcs={**wcs_cards(), "RADESYS": said})
    image = align(read_rubin(path)).rubin
    sky = image.wcs.pixel_to_world(19.5, 19.5)
    assert sky.frame.name == frame
    assert sky.separation(SkyCoord(53.1, -27.9, unit="deg", frame=frame)).mas < 1


def test_unknown_frames(tmp_path):
    paths = [
        write_rubin(tmp_path / f"{band}.fits", band=band, wcs={**wcs_cards(), "RADESYS": "GAPPT"})
        for band in "gr"
    ]
    message = f"{paths[0]}: the frame of its WCS is unknown (RADESYS 'GAPPT', axes RA---TAN, DEC--TAN); "
    fails(WCSError, message, read_rubin, paths)
    wcs = WCS(fits.Header(wcs_cards()))
    wcs.wcs.radesys = "GAPPT"
    message = "Rubin: the frame of its WCS is unknown (RADESYS 'GAPPT'"
    fails(WCSError, message, SurveyImage, {"g": pixels()}, wcs, survey="rubin")
    fails(WCSError, message, SurveyImage, {"g": NDData(pixels(), wcs=wcs)}, survey="rubin")


def test_units(tmp_path):
    path = write_rubin(tmp_path / "a.fits", unit="MJy/sr")
    fails(ImageError, "unit 'MJy/sr' is not a flux density per pixel; allowed: nJy", read_rubin, path)
    path = write_rubin(tmp_path / "c.fits", unit="mag(AB)")
    fails(ImageError, "unit 'mag(AB)' is not a flux density per pixel", read_rubin, path)
    path = write_rubin(tmp_path / "b.fits", unit="furlong")
    fails(ImageError, "unit 'furlong' is not a flux density", read_rubin, path)
    for unit in ("adu", "electron", "DN"):
        path = write_rubin(tmp_path / f"{unit}.fits", unit=unit)
        fails(
            ImageError, f"unit {unit!r} needs a zero point, and its header has none; give", read_rubin, path
        )
    assert read_rubin(path, zero_point=27.0).bands == ("g",)
    for key in ("FLUXMAG0", "MAGZERO"):
        path = write_rubin(tmp_path / f"{key}.fits", unit=None, primary_cards={key: "abc"})
        fails(ImageError, f"{key} of its header is 'abc'; allowed: a number", read_rubin, path)


@pytest.mark.parametrize("value", ["x", [27.0], np.nan, -np.inf, 3e4, {"g": "x"}])
def test_zero_points(tmp_path, value):
    path = write_rubin(tmp_path / "a.fits")
    said = value["g"] if isinstance(value, dict) else value
    message = f"zero_point of band g is {said!r}; allowed: an AB magnitude, -60 to 60"
    fails(ImageError, message, read_rubin, path, zero_point=value)
    assert read_rubin(path, zero_point="31.4").meta["calibration"] == {"g": "zero_point"}


def test_zero_points_of_headers(tmp_path):
    for key, value, said in (("MAGZERO", -999.0, "MAGZERO of its header is -999.0"),
                             ("FLUXMAG0", 1e-300, "zero point by FLUXMAG0 is -750.0")):  # fmt: skip
        path = write_rubin(tmp_path / f"{key}.fits", unit=None, primary_cards={key: value})
        fails(ImageError, f"{said}; allowed: an AB magnitude, -60 to 60", read_rubin, path)


@pytest.mark.parametrize("number", ["zero", -1, 64])
def test_mask_plane_without_a_number(tmp_path, number):
    path = write_rubin(tmp_path / "a.fits", bits=np.full((40, 40), 2, np.int32), numbers={"BAD": number})
    fails(ImageError, f"a.fits: MP_BAD of its mask is {number!r}; allowed: the number of a", read_rubin, path)


def test_mask_plane_without_a_value(tmp_path):
    path = write_rubin(tmp_path / "a.fits", bits=np.full((40, 40), 2, np.int32), numbers={})
    fits.setval(path, "MSKN0000", value="BAD", ext=2)
    fits.setval(path, "MSKM0000", value="two", ext=2)
    fails(ImageError, "MSKM0000 of its mask is 'two'; allowed: the value of a bit", read_rubin, path)


def test_psfs(tmp_path):
    path = write_rubin(tmp_path / "a.fits")
    fails(ImageError, "shape (20, 20); allowed: a square image, odd", read_rubin, path, psf=np.ones((20, 20)))
    fails(BandError, "psf given for band 'r', which is not read", read_rubin, path, psf={"r": psf_image()})
    fails(BandError, "psf holds 2 PSFs for 1 bands", read_rubin, path, psf=[psf_image(), psf_image()])
    fails(FileError, "none.fits: no such file", read_rubin, path, psf=tmp_path / "none.fits")
    fails(ImageError, "psf is a int; give a path, an array or an HDU", read_rubin, path, psf=3)
    others = write_cutout(tmp_path / "c.fits", bands=("HSC_R",))
    fails(BandError, "c.fits: holds no PSF of band g", read_rubin, path, psf=others)


def test_psfs_of_which_none_is_told(tmp_path):
    path = write_rubin(tmp_path / "a.fits")
    image_hdu(np.stack([psf_image()] * 5), primary=True).writeto(tmp_path / "cube.fits")
    message = "cube.fits: holds 5 PSFs and does not say which is of band g; give one image for each band"
    fails(ImageError, message, read_rubin, path, psf=tmp_path / "cube.fits")
    image_hdu(np.full((2, 3, 9, 9), np.nan), primary=True).writeto(tmp_path / "cells.fits")
    message = "cells.fits: none of its 6 cells has a PSF without gaps"
    fails(ImageError, message, read_rubin, path, psf=tmp_path / "cells.fits")


def test_psf_on_pixels_that_are_too_different(tmp_path):
    path = write_rubin(tmp_path / "a.fits")
    image_hdu(psf_image(), primary=True, PIXELSCL=3.0).writeto(tmp_path / "psf.fits")
    message = "psf.fits: its PSF states pixels of 3 arcsec, those of the image are 0.2; give the PSF on"
    fails(ImageError, message, read_rubin, path, psf=tmp_path / "psf.fits")


def test_companions_of_another_shape(tmp_path):
    path = write_mer(tmp_path, rms=None)
    rms = tmp_path / path.name.replace("BGSUB-MOSAIC-VIS", "MOSAIC-VIS-RMS")
    image_hdu(np.ones((20, 20)), primary=True).writeto(rms)
    fails(ImageError, "rms of band VIS has shape (20, 20), its image (40, 40)", read_euclid, path)


def test_companions_of_another_place(tmp_path):
    path = write_mer(tmp_path, rms=None)
    rms = tmp_path / path.name.replace("BGSUB-MOSAIC-VIS", "MOSAIC-VIS-RMS")
    cards = wcs_cards(0.1, crpix=(120.5, 20.5))
    image_hdu(np.ones((40, 40)), primary=True, **cards).writeto(rms)
    fails(ImageError, f"{rms}: rms of band VIS lies 100 px off its image; put", read_euclid, path)
    # One whose WCS says nothing is taken.
    fits.setval(rms, "CRVAL1", value="abc")
    assert read_euclid(path).noise["VIS"].stated


def test_no_image(tmp_path):
    path = tmp_path / "table_g.fits"
    fits.HDUList([fits.PrimaryHDU(), fits.BinTableHDU.from_columns([])]).writeto(path)
    fails(ImageError, "table_g.fits: holds no image", read_rubin, path)


def test_unknown_keywords_are_not_swallowed(tmp_path):
    path = write_rubin(tmp_path / "a.fits")
    with pytest.raises(TypeError, match="zeropoint"):
        read_rubin(path, zeropoint=27)


@pytest.mark.parametrize(
    ("label", "band"),
    [
        ("g", "g"), ("LSST_g", "g"), ("HSC-I", "i"), ("HSC-I2", "i"), ("i_03", "i"), ("r_57", "r"),
        ("MEGACAM_U", "u"), ("DES_G", "g"), ("DECam_r", "r"), ("G", "g"),
        ("ComCam_g_01", "g"), ("LSST_r_57", "r"), ("lsst2016-g", "g"),
        ("lsst_y", "y"), ("HSC-Y", "y"), ("y_04", "y"),
        ("z DECam SDSS c0004 9260.0 1520.0", "z"), ("u.MP9302", "u"), ("i2", "i"),
        ("i_sim_1.4", "i"), ("Sloan i", "i"), ("i_PS1", "i"), ("Y_PS1", "y"), ("W-S-I+", "i"), ("g+", "g"),
        ("i-band", "i"), ("r band", "r"), ("y-band", "y"), ("LSST i-band", "i"), ("VST_i", "i"),
        ("OmegaCAM_r", "r"), ("Y-band", None), ("H_NISP", None), ("i_simple", None), ("band", None),
        ("Y", None), ("NIR_Y", None), ("VIS", None), ("F814W", None), ("N921", None),
        ("white", None), ("", None),
    ],
)  # fmt: skip
def test_rubin_filter_names(label, band):
    assert band_of_label(label, RUBIN) == band


@pytest.mark.parametrize(
    ("label", "band"),
    [
        ("VIS", "VIS"), ("vis", "VIS"), ("NIR_Y", "Y"), ("NIR-J", "J"), ("NISP_H", "H"), ("NISP-P-Y", "Y"),
        ("Y", "Y"), ("h", "H"), ("I_E", "VIS"), ("Y_E", "Y"), ("Euclid VIS", "VIS"), ("EUCLID_H", "H"),
        ("VIS_IE", "VIS"), ("IE", "VIS"), ("YE", "Y"), ("JE", "J"), ("HE", "H"), ("NISP_HE", "H"),
        ("H_NISP", "H"), ("EUC_VIS", "VIS"), ("Euclid/NISP.Y", "Y"), ("Y-band", "Y"), ("VIS band", "VIS"),
        ("y", None), ("HSC-Y", None), ("g", None), ("VISTA_J", None), ("K", None), ("", None),
        ("y-band", None), ("i-band", None), ("J_VISTA", None), ("F160W", None),
    ],
)  # fmt: skip
def test_euclid_filter_names(label, band):
    assert band_of_label(label, EUCLID) == band


def test_no_name_means_a_band_of_both_surveys():
    labels = [
        *"ugrizyYJH",
        "VIS",
        "NIR_Y",
        "HSC-Y",
        "LSST_y",
        "Euclid_Y",
        "y-band",
        "Y-band",
        "Y_NISP",
        "Y_PS1",
    ]
    for label in labels:
        assert (band_of_label(label, RUBIN) is None) != (band_of_label(label, EUCLID) is None), label


@pytest.mark.parametrize("name", ["image.fits", "gri.fits", "field_7.fits", "summary.fits", "sky.fits"])
def test_names_without_a_band(name):
    assert band_of_file(name, RUBIN) is None
    assert band_of_file(name, EUCLID) is None
