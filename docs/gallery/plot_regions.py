# Licensed under a 3-clause BSD style license - see LICENSE
"""
DS9 regions, and tables for other tools
=======================================

Needs ``pip install "jaisp[export]"``.
"""

from importlib.resources import files
from pathlib import Path
from tempfile import mkdtemp

from matplotlib.figure import Figure
from regions import Regions

from jaisp import DETRJEPA
from jaisp.catalog import read_catalog, rgb, write_catalog, write_regions
from jaisp.io import read_euclid

image = read_euclid(sorted((files("jaisp") / "data" / "demo").glob("euclid_*.fits.gz")))
table = DETRJEPA.from_pretrained().catalog(euclid=image)
folder = Path(mkdtemp())

# %%
# One ellipse for each object, magenta where a flag casts doubt on its measurement. DS9 opens the file.
write_regions(table, folder / "catalog.reg", color_by="flags")
print(*(folder / "catalog.reg").read_text().splitlines()[:4], sep="\n")

# %%
# The `regions` package reads it back and draws it on any image.
figure = Figure(figsize=(6, 6), layout="constrained")
panel = figure.subplots()
panel.imshow(rgb(image), origin="lower")
for region in Regions.read(folder / "catalog.reg", format="ds9"):
    region.to_pixel(image.wcs).plot(ax=panel)
panel.set(xticks=[], yticks=[])

# %%
# A VOTable carries units, UCDs and the coordinate system, so TOPCAT knows the columns. So do FITS and ECSV.
write_catalog(table, folder / "catalog.vot")
again = read_catalog(folder / "catalog.vot")
print(again["euclid_vis_flux"].info.meta, again["sky_centroid"][0])
