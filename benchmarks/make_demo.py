# Licensed under a 3-clause BSD style license - see LICENSE
"""
Make the example pair of ``jaisp demo``: ``python benchmarks/make_demo.py``.

It is a field of `jaisp.simulation.simulate`, with Rubin turned by 20 degrees, whose numbers are rounded to
what the noise leaves of them so that they compress.
"""

import gzip
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from astropy.io import fits
from astropy.table import QTable

from jaisp.simulation import simulate

DEMO = Path(__file__).parents[1] / "jaisp" / "data" / "demo"
SEED = 23
TRUTH = (
    "id",
    "sky_centroid",
    "x",
    "y",
    "half_light_radius",
    "is_star",
    "snr",
    "rubin_snr",
    "euclid_snr",
    "nearest",
)


def keep_bits(values, bits):
    """Round to ``bits`` significant bits."""
    mantissa, exponent = np.frexp(values)
    return np.ldexp(np.round(mantissa * 2.0**bits) / 2.0**bits, exponent).astype(np.float32)


def rounded(hdu, noise):
    """The pixels of an HDU: images to a quarter of their noise, the rest to 1 % and better."""
    if hdu.data is None or hdu.data.dtype.kind != "f":
        return hdu.data
    if hdu.name in ("VARIANCE", "RMS"):
        return keep_bits(hdu.data, 7)
    if hdu.name == "PSF":
        return keep_bits(hdu.data, 12)
    step = 2.0 ** np.floor(np.log2(noise / 4))
    # In the middle of steps: exactly 0 means "no data".
    middle = (np.floor(hdu.data / step) + 0.5) * step
    return np.where(hdu.data == 0, 0, middle).astype(np.float32)


def compress(path, target):
    with fits.open(path) as hdus:
        noise = (
            np.sqrt(np.median(hdus["VARIANCE"].data)) if "VARIANCE" in hdus else np.median(hdus["RMS"].data)
        )
        for hdu in hdus:
            hdu.data = rounded(hdu, float(noise))
        hdus.writeto(path, overwrite=True)
    # No name and no time in the header: the same field gives the same bytes.
    target.write_bytes(gzip.compress(path.read_bytes(), mtime=0))


def main():
    DEMO.mkdir(parents=True, exist_ok=True)
    for old in DEMO.iterdir():
        old.unlink()
    with TemporaryDirectory() as folder:
        (field,) = simulate(folder, seed=SEED, size_arcmin=0.67, rotation=20.0, galaxies="knots")
        for path in sorted(field.glob("[re]*.fits")):
            compress(path, DEMO / f"{path.name}.gz")
        truth = QTable.read(field / "truth.fits")[list(TRUTH)]
        truth.write(DEMO / "truth.fits")
    size = sum(path.stat().st_size for path in DEMO.iterdir())
    print(f"{DEMO}: {len(list(DEMO.iterdir()))} files, {size / 1e6:.2f} MB")


if __name__ == "__main__":
    main()
