# Licensed under a 3-clause BSD style license - see LICENSE
"""Images written in the file layouts of the two surveys: each file whole or not at all."""

from pathlib import Path

import numpy as np
from astropy.io import fits
from astropy.table import QTable

from jaisp.exceptions import ConfigError, FileError
from jaisp.files import atomic_path
from jaisp.simulation import _galsim
from jaisp.simulation.fields import simulate_field
from jaisp.surveys import AB_ZERO_POINT

__all__ = ["simulate", "write_euclid", "write_rubin"]

# The mask planes of DP1 coadds; their numbers differ from file to file.
_MASK_PLANES = {
    "BAD": 0,
    "SAT": 1,
    "INTRP": 2,
    "CR": 3,
    "EDGE": 4,
    "DETECTED": 5,
    "DETECTED_NEGATIVE": 6,
    "SUSPECT": 7,
    "NO_DATA": 8,
}
_MAGZERO = {"VIS": 24.6, "Y": 29.8, "J": 30.0, "H": 29.9}
_NO_DATA_RMS = 1e16
_LAYOUTS = ("single", "mer", "cutout")
_FIELD_FILES = ("truth.fits", "rubin_*.fits", "euclid_*.fits", "EUC_MER_*.fits")


def write_rubin(image, folder):
    """
    Write Rubin bands as LSST-like coadd files, ``rubin_<band>.fits``.

    In nJy; PRIMARY (with ``BAND``), ``IMAGE``, ``MASK`` (with ``MP_*`` cards), ``VARIANCE`` and ``PSF``.

    Parameters
    ----------
    image : `~jaisp.image.SurveyImage`
        Image to write.
    folder : str or path-like
        Folder, made if missing.

    Returns
    -------
    list of `~pathlib.Path`
        One file per band.
    """
    folder = _folder(folder)
    paths = []
    for band in image.bands:
        header = _wcs_header(image.wcs)
        header["BUNIT"] = "nJy"
        bits = np.zeros(image.shape, np.int32)
        bits[image.mask[band]] |= 1 << _MASK_PLANES["BAD"]
        bits[image.data[band] > 5 * np.sqrt(image.variance[band])] |= 1 << _MASK_PLANES["DETECTED"]
        mask_header = _wcs_header(image.wcs)
        for name, bit in _MASK_PLANES.items():
            mask_header[f"HIERARCH MP_{name}"] = bit
        variance_header = _wcs_header(image.wcs)
        variance_header["BUNIT"] = "nJy2"
        primary = fits.PrimaryHDU()
        primary.header["BAND"] = band
        primary.header["BUNIT"] = "nJy"
        primary.header["SIMULATE"] = (bool(image.meta.get("simulated")), "simulated pixels")
        hdus = [
            primary,
            fits.ImageHDU(image.data[band], header, name="IMAGE"),
            fits.ImageHDU(bits, mask_header, name="MASK"),
            fits.ImageHDU(image.variance[band], variance_header, name="VARIANCE"),
            fits.ImageHDU(image.psf[band], name="PSF"),
        ]
        paths.append(_write(hdus, folder / f"rubin_{band}.fits"))
    return paths


def write_euclid(image, folder, *, layout="single"):
    """
    Write Euclid bands in one of the layouts in which Euclid images come.

    Masked pixels become what MER makes of them: value 0, RMS 1e16.

    Parameters
    ----------
    image : `~jaisp.image.SurveyImage`
        Image to write.
    folder : str or path-like
        Folder, made if missing.
    layout : str, optional
        ``"single"``: one file per band, ``euclid_<band>.fits``, image in PRIMARY, then ``RMS``, ``FLAG``,
        ``PSF``; ``"mer"``: separate mosaic, RMS, FLAG and PSF-grid files by the MER naming; ``"cutout"``: one
        file, ``euclid_cutout.fits``, of ``<BAND>_FLUX``, ``<BAND>_PSF``, ``<BAND>_RMS``.

    Returns
    -------
    list of `~pathlib.Path`
        The files that hold images.
    """
    _galsim.choose("layout", layout, _LAYOUTS)
    folder = _folder(folder)
    paths, cutouts = [], [fits.PrimaryHDU()]
    for band in image.bands:
        name = "VIS" if band == "VIS" else f"NIR_{band}"
        factor = np.float32(10 ** ((_MAGZERO[band] - AB_ZERO_POINT) / 2.5))
        header = _mer_header(image.wcs)
        header["MAGZERO"] = (_MAGZERO[band], "AB zeropoint")
        header["FILTER"] = (name, "the filter name")
        header["DATASETR"] = ("SIMULATED", "not data of the survey")
        mask = image.mask[band]
        data = np.where(mask, np.float32(0), image.data[band] * factor)
        rms = np.where(mask, np.float32(_NO_DATA_RMS), np.sqrt(image.variance[band]) * factor)
        flag, psf = mask.astype(np.int32), image.psf[band]
        if layout == "single":
            hdus = [
                fits.PrimaryHDU(data, header),
                fits.ImageHDU(rms, header, name="RMS"),
                fits.ImageHDU(flag, header, name="FLAG"),
                fits.ImageHDU(psf, name="PSF"),
            ]
            paths.append(_write(hdus, folder / f"euclid_{band}.fits"))
        elif layout == "cutout":
            cutouts += [
                fits.ImageHDU(data, header, name=f"{name}_FLUX"),
                fits.ImageHDU(psf, name=f"{name}_PSF"),
                fits.ImageHDU(rms, name=f"{name}_RMS"),
            ]
        else:
            paths.append(_write_mer(folder, name.replace("_", "-"), data, rms, flag, psf, header))
    if layout == "cutout":
        paths.append(_write(cutouts, folder / "euclid_cutout.fits"))
    return paths


def _wcs_header(wcs):
    """WCS cards, those of distortion (SIP) too."""
    return wcs.to_header(relax=True)


def _mer_header(wcs):
    """WCS cards as MER writes them: a CD matrix."""
    header = _wcs_header(wcs)
    scale = wcs.pixel_scale_matrix
    for name in ("PC1_1", "PC1_2", "PC2_1", "PC2_2", "CDELT1", "CDELT2"):
        header.remove(name, ignore_missing=True)
    for i in (0, 1):
        for j in (0, 1):
            header[f"CD{i + 1}_{j + 1}"] = scale[i, j]
    return header


def _write_mer(folder, name, data, rms, flag, psf, header):
    """Four files of one band by the MER naming; PSF stamps lie on an image of their own."""
    tail = "20250101T000000.000000Z_00.00.fits"
    tile = "TILE100000001"
    _write([fits.PrimaryHDU(rms, header)], folder / f"EUC_MER_MOSAIC-{name}-RMS_{tile}-51A1A2_{tail}")
    _write([fits.PrimaryHDU(flag, header)], folder / f"EUC_MER_MOSAIC-{name}-FLAG_{tile}-51A1A3_{tail}")
    # Never so small that it could be taken for a single PSF.
    grid = np.zeros(np.maximum(data.shape, 600), np.float32)
    half = len(psf) // 2
    places = [
        (y, x)
        for y in range(2 * half, grid.shape[0] - 2 * half, 150)
        for x in range(2 * half, grid.shape[1] - 2 * half, 150)
    ]
    for y, x in places:
        grid[y - half : y + half + 1, x - half : x + half + 1] = psf
    stamps = header.copy()
    stamps["STMPSIZE"] = len(psf)
    where = np.array(places, float)
    columns = fits.ColDefs(
        [fits.Column("x", "D", array=where[:, 1] + 1), fits.Column("y", "D", array=where[:, 0] + 1)]
    )
    _write(
        [
            fits.PrimaryHDU(),
            fits.ImageHDU(grid, stamps, name="PSF image"),
            fits.BinTableHDU.from_columns(columns, name="Stamps information"),
        ],
        folder / f"EUC_MER_GRID-PSF-{name}_{tile}-51A1A4_{tail}",
    )
    # The mosaic last: whoever finds it finds its companions.
    return _write(
        [fits.PrimaryHDU(data, header)], folder / f"EUC_MER_BGSUB-MOSAIC-{name}_{tile}-51A1A1_{tail}"
    )


def simulate(
    output,
    *,
    n_tiles=1,
    seed=0,
    size_arcmin=0.64,
    layout="single",
    progress=None,
    **options,
):
    """
    Draw paired fields and write each to a folder of its own.

    Parameters
    ----------
    output : str or path-like
        Folder to write: ``field_000/`` holds ``rubin_*.fits``, ``euclid_*.fits`` and ``truth.fits``. A field
        that is there is replaced.
    n_tiles : int, optional
        Number of fields.
    seed : int, optional
        Seed; field ``i`` depends on it, on ``i`` and on the options alone.
    size_arcmin : float, optional
        Side of a field in arcmin.
    layout : str, optional
        Layout of the Euclid files, see `write_euclid`.
    progress : callable, optional
        Called with the number of fields done and to do after each.
    **options
        Handed on to `simulate_field`. The rotation is drawn from -30 to 30 degrees where not given.

    Returns
    -------
    list of `~pathlib.Path`
        The folders.

    Raises
    ------
    MissingDependencyError
        If GalSim is not installed.
    """
    if n_tiles < 1:
        raise ConfigError(f"n_tiles is {n_tiles}; give at least 1")
    if seed < 0:
        raise ConfigError(f"seed is {seed}; give a whole number of at least 0")
    _galsim.require()
    _galsim.choose("layout", layout, _LAYOUTS)
    folders = []
    for index in range(n_tiles):
        rng = np.random.default_rng([seed, index])
        chosen = {"rotation": rng.uniform(-30, 30), **options}
        rubin, euclid, truth = simulate_field(rng, size_arcmin=size_arcmin, **chosen)
        folder = _folder(Path(output) / f"field_{index:03d}")
        # A field written there before, in another layout, would be read along with this one.
        for path in [path for pattern in _FIELD_FILES for path in folder.glob(pattern)]:
            path.unlink()
        write_rubin(rubin, folder)
        write_euclid(euclid, folder, layout=layout)
        _write(truth, folder / "truth.fits")
        folders.append(folder)
        if progress is not None:
            progress(index + 1, n_tiles)
    return folders


def _folder(path):
    path = Path(path)
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise FileError(
            f"cannot make the folder {path}: {error.strerror}; give one that can be written"
        ) from None
    return path


def _write(content, path):
    """Write HDUs or a table to a FITS file, whole or not at all."""
    try:
        with atomic_path(path) as partial:
            if isinstance(content, QTable):
                content.write(partial, format="fits", overwrite=True)
            else:
                fits.HDUList(content).writeto(partial, overwrite=True)
    except OSError as error:
        raise FileError(f"cannot write {path}: {error}; give a folder that can be written") from None
    return path
