# Licensed under a 3-clause BSD style license - see LICENSE
"""Small files in every layout that the readers know."""

import numpy as np
from astropy.io import fits
from astropy.table import Table

TILE = "TILE102070858"
ZERO_POINTS = {"VIS": 24.6, "NIR_Y": 29.8, "NIR_J": 30.0, "NIR_H": 29.9}
DP1_BITS = {
    "BAD": 0,
    "SAT": 1,
    "INTRP": 2,
    "CR": 3,
    "EDGE": 4,
    "DETECTED": 5,
    "DETECTED_NEGATIVE": 6,
    "SUSPECT": 7,
    "NO_DATA": 8,
    "SENSOR_EDGE": 17,
    "UNMASKEDNAN": 18,
}


def wcs_cards(scale=0.2, *, angle=0.0, crpix=(20.5, 20.5), crval=(53.1, -27.9), system="CD"):
    """Cards of a tangent WCS of ``scale`` arcsec, turned by ``angle`` degrees, with CD, PC or both."""
    cos, sin = np.cos(np.radians(angle)), np.sin(np.radians(angle))
    matrix = scale / 3600 * np.array([[-cos, sin], [sin, cos]])
    cards = {
        "CTYPE1": "RA---TAN",
        "CTYPE2": "DEC--TAN",
        "CUNIT1": "deg",
        "CUNIT2": "deg",
        "CRVAL1": crval[0],
        "CRVAL2": crval[1],
        "CRPIX1": crpix[0],
        "CRPIX2": crpix[1],
        "RADESYS": "ICRS",
    }
    for name in ("CD", "PC") if system == "both" else (system,):
        cards |= {f"{name}{i}_{j}": matrix[i - 1, j - 1] for i in (1, 2) for j in (1, 2)}
    if system != "CD":
        cards |= {"CDELT1": 1.0, "CDELT2": 1.0}
    return cards


def pixels(seed=0, shape=(40, 40), sd=1.0):
    """Noise with a source in the middle."""
    rng = np.random.default_rng(seed)
    y, x = np.indices(shape)
    source = 50 * np.exp(-0.5 * ((x - shape[1] // 2) ** 2 + (y - shape[0] // 2) ** 2) / 4)
    return (sd * (rng.normal(size=shape) + source)).astype(np.float32)


def psf_image(size=21, sd=1.5, shift=(0.0, 0.0)):
    y, x = np.indices((size, size)) - size // 2
    psf = np.exp(-0.5 * ((x - shift[0]) ** 2 + (y - shift[1]) ** 2) / sd**2)
    return psf / psf.sum()


def image_hdu(data, name=None, *, primary=False, **cards):
    hdu = fits.PrimaryHDU(data) if primary else fits.ImageHDU(data, name=name)
    hdu.header.update({key: value for key, value in cards.items() if value is not None})
    return hdu


def write_rubin(
    path,
    *,
    band="g",
    band_key="BAND",
    unit="nJy",
    unit_in="IMAGE",
    data=None,
    variance=4.0,
    bits=None,
    numbers=None,
    psf=True,
    wcs=None,
    naming="EXTNAME",
    compressed=False,
    primary_cards=(),
):
    """One band as the LSST pipelines write it."""
    data = pixels(1, sd=2.0) if data is None else data
    primary = fits.PrimaryHDU()
    if band_key == "HIERARCH":
        primary.header["HIERARCH LSST BUTLER DATAID BAND"] = band
    elif band_key:
        primary.header[band_key] = band
    if unit_in == "PRIMARY" and unit:
        primary.header["BUNIT"] = unit
    primary.header.update(dict(primary_cards))
    cards = wcs_cards() if wcs is None else wcs
    # The second WCS, of parent pixels, that such files have.
    cards = {**cards, "CTYPE1A": "LINEAR", "CTYPE2A": "LINEAR", "CRPIX1A": 1.0, "CRVAL1A": 1200.0}
    planes = {"IMAGE": data}
    planes["MASK"] = np.zeros(data.shape, np.int32) if bits is None else bits
    planes["VARIANCE"] = np.full(data.shape, variance, np.float32)
    hdus = [primary]
    for name, array in planes.items():
        kind = fits.CompImageHDU if compressed else fits.ImageHDU
        options = {"compression_type": "RICE_1" if name == "MASK" else "GZIP_2"} if compressed else {}
        if compressed and name != "MASK":
            options["quantize_level"] = 0
        hdu = kind(np.asarray(array), **options)
        hdu.header.update(cards)
        hdu.header[naming] = name
        if name == "IMAGE" and unit_in == "IMAGE" and unit:
            hdu.header["BUNIT"] = unit
        if name == "MASK":
            for plane, number in (DP1_BITS if numbers is None else numbers).items():
                hdu.header[f"HIERARCH MP_{plane}" if len(plane) > 5 else f"MP_{plane}"] = number
        hdus.append(hdu)
    hdus.append(fits.BinTableHDU(Table({"cat.archive": [1, 2]}), name="ARCHIVE_INDEX"))
    if psf:
        hdus.append(fits.ImageHDU(psf_image(25, 1.8).astype(np.float32), name="PSF"))
    fits.HDUList(hdus).writeto(path)
    return path


def write_euclid(
    path, *, filter_name="VIS", rms=2.0, flags=None, psf=True, data=None, wcs=None, zero_point=True
):
    """One band with everything in one file: image in PRIMARY, then RMS, FLAG and PSF."""
    data = pixels(2, sd=2.0) if data is None else data
    cards = wcs_cards(0.1) if wcs is None else wcs
    value = ZERO_POINTS.get(filter_name, 24.6) if zero_point else None
    hdus = [image_hdu(data, primary=True, FILTER=filter_name, MAGZERO=value, **cards)]
    if rms is not None:
        hdus.append(image_hdu(np.broadcast_to(np.float32(rms), data.shape).copy(), "RMS", **cards))
    if flags is not None:
        hdus.append(image_hdu(flags, "FLAG", **cards))
    if psf:
        hdus.append(image_hdu((0.95 * psf_image(21, 0.9)).astype(np.float32), "PSF"))
    fits.HDUList(hdus).writeto(path)
    return path


def write_mer(
    folder,
    *,
    band="VIS",
    data=None,
    rms=2.0,
    flags=None,
    grid_psf=True,
    date="20241105T125727",
    wcs=None,
    cut="",
):
    """A MER mosaic, or a cutout of one, its RMS and FLAG maps and its PSFs, each in its own file."""
    data = pixels(3, sd=2.0) if data is None else data
    filter_name = band.replace("-", "_")
    cards = {
        **(wcs_cards(0.1) if wcs is None else wcs),
        "MAGZERO": ZERO_POINTS.get(filter_name, 30.0),
        "FILTER": filter_name,
        "DATASETR": "Q1_R1",
    }
    end = f"{TILE}-5ED2D5_{date}.727353Z_00.00{cut}.fits"
    mosaic = folder / f"EUC_MER_BGSUB-MOSAIC-{band}_{end}"
    image_hdu(data, primary=True, **cards).writeto(mosaic)
    if rms is not None:
        array = np.broadcast_to(np.float32(rms), data.shape).copy()
        image_hdu(array, primary=True, **cards).writeto(folder / f"EUC_MER_MOSAIC-{band}-RMS_{end}")
    if flags is not None:
        image_hdu(flags, primary=True, **cards).writeto(folder / f"EUC_MER_MOSAIC-{band}-FLAG_{end}")
    if grid_psf:
        write_psf_grid(folder / f"EUC_MER_GRID-PSF-{band}_{end}", cards)
    return mosaic


def write_psf_grid(path, cards, size=21, side=600, step=120, wide_from=None):
    """A mosaic of stamps, each at its place, with their table: those right of ``wide_from`` are wider."""
    places = np.arange(step // 2, side, step)
    image = np.zeros((side, side), np.float32)
    x, y = (grid.ravel() for grid in np.meshgrid(places, places))
    for column, row in zip(x, y, strict=True):
        sd = 2.5 if wide_from is not None and column > wide_from else 0.9
        half = size // 2
        image[row - half : row + half + 1, column - half : column + half + 1] = 0.96 * psf_image(size, sd)
    table = Table({"x": x + 1.0, "y": y + 1.0, "FWHM": np.full(x.size, 0.2)})
    stamps = image_hdu(image, "PSF image", STMPSIZE=size, FWHM=0.2, **cards)
    fits.HDUList([fits.PrimaryHDU(), stamps, fits.BinTableHDU(table, name="Stamps information")]).writeto(
        path
    )
    return path


def write_cutout(path, bands=("MEGACAM_U", "HSC_G", "VIS", "NIR_Y", "NIR_J", "NIR_H"), *, kind="FLUX"):
    """Several bands in one file, as cutouts of MER mosaics are: only the images have WCS and MAGZERO."""
    hdus = [fits.PrimaryHDU()]
    for number, band in enumerate(bands):
        cards = wcs_cards(0.1, crpix=(7413.0, -4610.0), crval=(266.462, 66.0), system="both")
        data = pixels(number, sd=2.0)
        hdu = image_hdu(data, f"{band}_{kind}", MAGZERO=ZERO_POINTS.get(band, 30.0), **cards)
        hdu.header.append(("FILTER", band), end=True)
        hdu.header.append(("FILTER", band), end=True)
        hdus += [
            hdu,
            image_hdu(psf_image(), f"{band}_PSF", FILTER=band),
            image_hdu(np.full(data.shape, 2.0, np.float32), f"{band}_RMS"),
        ]
    fits.HDUList(hdus).writeto(path)
    return path
