# Licensed under a 3-clause BSD style license - see LICENSE
"""
Real HSC blends with injected sources of known magnitude: positions beside SEP, and magnitudes.

Rubin alone (HSC acts as Rubin), no Euclid. Example::

    python benchmarks/hsc_blends.py realdata/hsc_blends/*.npz
"""

import argparse
import warnings
from pathlib import Path

import numpy as np
import sep
from astropy.wcs import WCS

from jaisp import DETRJEPA, SurveyImage
from jaisp.exceptions import JaispWarning

BANDS, SCALE, ZERO_POINT = "grizy", 0.168, 27.0


def read_blend(path):
    """Image, and the injected source: x, y (pixels) and its magnitudes."""
    blend = np.load(path, allow_pickle=False)
    ny, nx = blend["images"].shape[1:]
    wcs = WCS(naxis=2)
    wcs.wcs.ctype, wcs.wcs.crval = ["RA---TAN", "DEC--TAN"], [150.0, 2.0]
    wcs.wcs.crpix, wcs.wcs.cdelt = [nx / 2, ny / 2], [-SCALE / 3600, SCALE / 3600]
    to_njy = 10 ** ((31.4 - ZERO_POINT) / 2.5)
    side = max(blend["psfs"].shape[1:])
    pad = [(0, 0)] + [((side - n) // 2, (side - n) // 2) for n in blend["psfs"].shape[1:]]
    psfs = np.pad(blend["psfs"], pad)  # some are a little wider than high
    planes = dict(zip(BANDS, zip(blend["images"], blend["variance"], psfs, strict=True), strict=True))
    image = SurveyImage(
        {band: plane[0] * to_njy for band, plane in planes.items()},
        wcs,
        survey="rubin",
        unit="nJy",
        variance={band: plane[1] * to_njy**2 for band, plane in planes.items()},
        psf={band: plane[2] for band, plane in planes.items()},
    )
    return image, blend["matched"]


def nearest(x, y, table):
    """Distance in arcsec to the nearest row, and its index."""
    distance = SCALE * np.hypot(table["x_centroid"].value - x, table["y_centroid"].value - y)
    return (distance.min(), int(distance.argmin())) if len(distance) else (np.inf, -1)


def main(argv=None):
    parser = argparse.ArgumentParser(description=__doc__.strip().splitlines()[0])
    parser.add_argument("files", nargs="+", type=Path)
    parser.add_argument("--weights", type=Path)
    args = parser.parse_args(argv)
    warnings.simplefilter("ignore", JaispWarning)
    model = DETRJEPA.from_pretrained(args.weights)
    offsets, found, differences = [], [], {band: [] for band in BANDS}
    for path in args.files:
        image, injected = read_blend(path)
        table = model.catalog(rubin=image)
        data = np.ascontiguousarray(image.data["i"])
        level = sep.Background(data)
        sources = sep.extract(data - level.back(), 3, err=level.globalrms, deblend_cont=0.0005)
        bright = sources[sources["flux"] > 50 * level.globalrms * np.sqrt(sources["npix"])]
        offsets += [nearest(source["x"], source["y"], table)[0] for source in bright]
        for source in injected:
            distance, row = nearest(source["x"], source["y"], table)
            found.append(distance < 0.5)
            for band in BANDS if distance < 0.5 else ():
                flux = table[f"rubin_{band}_flux"][row].value
                if flux > 0:
                    differences[band].append(31.4 - 2.5 * np.log10(flux) - source[f"{band}magVar"])
        print(path.stem, len(table), "rows", flush=True)
    offsets = np.array(offsets)
    print(f"bright SEP sources with a row within 0.1 arcsec: {(offsets < 0.1).sum()} of {len(offsets)}")
    print(f"median distance {1e3 * np.median(offsets):.0f} mas")
    print(f"injected sources found: {sum(found)} of {len(found)}")
    for band, values in differences.items():
        low, middle, high = np.percentile(values, [15.865, 50, 84.135])
        print(
            f"{band}: measured - injected {middle:+.3f} mag, scatter {(high - low) / 2:.3f}, n {len(values)}"
        )


if __name__ == "__main__":
    main()
