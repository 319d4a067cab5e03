# Licensed under a 3-clause BSD style license - see LICENSE
"""
Many patches, in many processes
===============================

A survey is patches that overlap a little. Each is catalogued by itself, so they can run side by side, on one
machine or on many; then each object is taken from the patch whose middle is nearest, so that it is in the
joined catalogue once. Here two patches are cut from the example pair; yours are files already.
"""

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from importlib.resources import files
from pathlib import Path
from tempfile import mkdtemp

import numpy as np
from astropy.coordinates import SkyCoord
from astropy.io import fits
from astropy.table import vstack
from astropy.wcs import WCS
from matplotlib.figure import Figure

from jaisp.catalog import read_catalog, write_catalog

demo = files("jaisp") / "data" / "demo"
folder = Path(mkdtemp())


# %%
# The patches: two halves of the Euclid images, with an overlap of 6 arcsec, in a folder each. Rubin's images
# may cover more sky than the patch: with ``--region euclid`` only the patch is searched.
centres = []
for number, (left, right) in enumerate(((0, 231), (171, 402))):
    patch = folder / f"patch_{number}"
    patch.mkdir()
    for band in ("VIS", "H"):
        with fits.open(demo / f"euclid_{band}.fits.gz") as hdus:
            for hdu in hdus[:3]:
                hdu.data = hdu.data[:, left:right]
                hdu.header["CRPIX1"] -= left
            hdus.writeto(patch / f"euclid_{band}.fits")
            ny, nx = hdus[0].shape
            wcs = WCS(hdus[0].header)
    centres.append(wcs.pixel_to_world((nx - 1) / 2, (ny - 1) / 2))
centres = SkyCoord(centres)


# %%
# One command for each patch, two at a time; the threads here only wait for the processes. With a batch system
# the same command is one task of a job array; with dask it is ``client.map(catalogue, patches)``.
def catalogue(patch):
    """Make the catalogue of a patch."""
    rubin = [str(demo / f"rubin_{band}.fits.gz") for band in "gi"]
    euclid = [str(path) for path in sorted(patch.glob("euclid_*.fits"))]
    command = [sys.executable, "-m", "jaisp", "catalog", "--rubin", *rubin, "--euclid", *euclid]
    command += ["--region", "euclid", "--workers", "1", "-o", str(patch / "catalog.fits")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return done.stdout + done.stderr if done.returncode else done.stdout


patches = sorted(folder.glob("patch_*"))
with ThreadPoolExecutor(max_workers=2) as pool:
    for patch, told in zip(patches, pool.map(catalogue, patches), strict=True):
        print(patch.name, told.strip().removeprefix(str(patch / "catalog.fits")))

# %%
# A patch that failed says why in one line, and leaves no file: run it again later. Joined, ids are made
# unique, and a column says where a row is from, as tiles and blends are numbered in each patch anew.
parts = []
for number, patch in enumerate(patches):
    table = read_catalog(patch / "catalog.fits")
    nearest, _, _ = table["sky_centroid"].match_to_catalog_sky(centres)
    table = table[nearest == number]
    table["patch"] = number
    parts.append(table)
survey = vstack(parts, metadata_conflicts="silent")
survey["id"] = np.arange(1, len(survey) + 1)
survey.meta = {"patches": [part.meta for part in parts]}  # astropy would mix them
write_catalog(survey, folder / "survey.fits")
print(f"{len(survey)} objects: {' + '.join(str(len(part)) for part in parts)}")

# %%
# No object is there twice, also where the patches overlap. `~jaisp.catalog.write_hats` writes such a table
# for LSDB (:doc:`/guide/exports`).
sky = survey["sky_centroid"]
_, separation, _ = sky.match_to_catalog_sky(sky, nthneighbor=2)
print(f"nearest two objects: {separation.min().arcsec:.2f} arcsec")

figure = Figure(figsize=(5.4, 4.8), layout="constrained")
panel = figure.subplots()
for number, part in enumerate(parts):
    east, north = centres[0].spherical_offsets_to(part["sky_centroid"])
    panel.plot(east.arcsec, north.arcsec, "o", ms=4, label=f"patch {number}")
panel.invert_xaxis()
panel.set(xlabel="east (arcsec)", ylabel="north (arcsec)", aspect="equal")
panel.legend()
