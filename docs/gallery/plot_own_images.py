# Licensed under a 3-clause BSD style license - see LICENSE
"""
Use your own arrays
===================

Images need not come from files that jaisp knows: a `~jaisp.image.SurveyImage` takes arrays.
"""

from importlib.resources import files

from astropy.io import fits
from astropy.wcs import WCS

from jaisp import DETRJEPA
from jaisp.catalog import plot_catalog
from jaisp.image import SurveyImage

# %%
# Here the arrays come from the example; yours may come from anywhere. Every band has the same shape and WCS.
data, variance, psf, zero_point = {}, {}, {}, {}
for band in ("VIS", "Y", "H"):
    with fits.open(files("jaisp") / "data" / "demo" / f"euclid_{band}.fits.gz") as hdus:
        data[band] = hdus[0].data
        variance[band] = hdus["RMS"].data ** 2
        psf[band] = hdus["PSF"].data
        wcs = WCS(hdus[0].header)
        zero_point[band] = hdus[0].header["MAGZERO"]

# %%
# jaisp works in nJy, whose AB zero point is 31.4. What was wrong and could be mended is told in ``findings``.
for band in data:
    nanojansky = 10 ** ((31.4 - zero_point[band]) / 2.5)
    data[band] = data[band] * nanojansky
    variance[band] = variance[band] * nanojansky**2
image = SurveyImage(data, wcs, survey="euclid", variance=variance, psf=psf, unit="nJy")
print(image, *image.findings, sep="\n")

# %%
# Look at the measured depth before you believe anything else: a wrong unit shows here first.
for band in image.bands:
    print(f"{band}: 5 sigma depth of a point source {image.noise[band].depth:.2f} AB")

# %%
table = DETRJEPA.from_pretrained().catalog(euclid=image)
figure = plot_catalog(table, (None, image), label=False)
