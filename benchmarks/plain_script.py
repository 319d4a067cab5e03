# Licensed under a 3-clause BSD style license - see LICENSE
"""
Without jaisp: reproject, SEP in VIS and Rubin i, cross-match, forced photometry in ten bands.

It does not import jaisp. It is the peer that ``pipeline.py`` times ``jaisp catalog`` against.
"""

import argparse
from pathlib import Path

import numpy as np
import sep
from astropy.coordinates import SkyCoord
from astropy.io import fits
from astropy.table import Table
from astropy.wcs import WCS
from reproject import reproject_interp

APERTURE = 1.0  # arcsec, radius


def band_of(path, header):
    """Name of the band: ``FILTER`` or ``BAND`` of the header, without the instrument's name."""
    name = header.get("FILTER") or header.get("BAND") or Path(path).stem.split("_")[-1]
    return str(name).strip().replace("NIR_", "").split("_")[-1]


def native(array):
    return np.ascontiguousarray(array, dtype=np.float32)


def read_rubin(path):
    """Band, image and variance in nJy, and WCS of one Rubin file."""
    with fits.open(path) as hdus:
        header = hdus["IMAGE"].header
        return (
            band_of(path, {**hdus[0].header, **header}),
            native(hdus["IMAGE"].data),
            native(hdus["VARIANCE"].data),
            WCS(header),
        )


def read_euclid(path):
    """Band, image and variance in nJy, and WCS of one Euclid file."""
    with fits.open(path) as hdus:
        header = hdus[0].header
        to_njy = 10 ** ((31.4 - header["MAGZERO"]) / 2.5)
        rms = native(hdus["RMS"].data)
        return band_of(path, header), native(hdus[0].data) * to_njy, (rms * to_njy) ** 2, WCS(header)


def detect(image, variance):
    """SEP's detections on a background-subtracted image."""
    background = sep.Background(image)
    return sep.extract(
        image - background.back(),
        1.5,
        err=np.sqrt(variance),
        minarea=5,
        deblend_nthresh=32,
        deblend_cont=0.005,
    )


def run(rubin_files, euclid_files):
    """Catalogue of both surveys as an astropy table."""
    sep.set_extract_pixstack(5_000_000)
    euclid = {band: (image, variance, wcs) for band, image, variance, wcs in map(read_euclid, euclid_files)}
    rubin = {band: (image, variance, wcs) for band, image, variance, wcs in map(read_rubin, rubin_files)}
    vis, vis_variance, wcs = euclid["VIS"]

    images = {("euclid", band): (image, variance) for band, (image, variance, _) in euclid.items()}
    for band, (image, variance, rubin_wcs) in rubin.items():
        # Interpolation keeps the brightness of a pixel: scale by the areas to keep flux. Variance per
        # pixel falls with the area too, as the flux in a fixed aperture must keep its error.
        ratio = np.abs(np.linalg.det(wcs.pixel_scale_matrix) / np.linalg.det(rubin_wcs.pixel_scale_matrix))
        planes = (np.stack([image, variance]), rubin_wcs)
        (moved, moved_variance), _ = reproject_interp(planes, wcs, shape_out=(2, *vis.shape))
        bad = ~np.isfinite(moved) | ~np.isfinite(moved_variance)
        moved[bad], moved_variance[bad] = 0, 1e30
        images["rubin", band] = native(moved * ratio), native(moved_variance * ratio)

    first = detect(vis, vis_variance)
    i_image, i_variance, i_wcs = rubin.get("i") or next(iter(rubin.values()))
    second = detect(i_image, i_variance)
    sky = wcs.pixel_to_world(first["x"], first["y"])
    other = i_wcs.pixel_to_world(second["x"], second["y"])
    index, separation, _ = sky.match_to_catalog_sky(other)
    partner = np.where(separation.arcsec < 0.5, index, -1)
    on_image = wcs.footprint_contains(other)
    taken = np.isin(np.arange(len(other)), partner) | ~on_image
    sky = SkyCoord(
        np.r_[sky.ra.deg, other.ra.deg[~taken]], np.r_[sky.dec.deg, other.dec.deg[~taken]], unit="deg"
    )
    x, y = wcs.world_to_pixel(sky)

    table = Table({"ra": sky.ra.deg, "dec": sky.dec.deg})
    table["rubin_match"] = np.r_[partner, np.flatnonzero(~taken)]
    radius = APERTURE / (np.sqrt(np.abs(np.linalg.det(wcs.pixel_scale_matrix))) * 3600)
    for (survey, band), (image, variance) in images.items():
        image = image - sep.Background(image).back()
        flux, error, flag = sep.sum_circle(image, x, y, radius, var=variance)
        name = f"{survey}_{band.lower()}"
        table[f"{name}_flux"], table[f"{name}_flux_err"], table[f"{name}_flag"] = flux, error, flag
    return table


def main(argv=None):
    parser = argparse.ArgumentParser(description=__doc__.strip().splitlines()[0])
    parser.add_argument("--rubin", nargs="+", required=True)
    parser.add_argument("--euclid", nargs="+", required=True)
    parser.add_argument("-o", "--output", required=True)
    args = parser.parse_args(argv)
    table = run(args.rubin, args.euclid)
    table.write(args.output, overwrite=True)
    print(f"{args.output}: {len(table)} objects")


if __name__ == "__main__":
    main()
