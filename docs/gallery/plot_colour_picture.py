# Licensed under a 3-clause BSD style license - see LICENSE
"""
Make a colour picture, and plot fluxes
======================================
"""

from importlib.resources import files

from matplotlib.figure import Figure

from jaisp import DETRJEPA
from jaisp.catalog import plot_sed, rgb
from jaisp.io import align, read_euclid, read_rubin

folder = files("jaisp") / "data" / "demo"
rubin = read_rubin(sorted(folder.glob("rubin_*.fits.gz")))
euclid = read_euclid(sorted(folder.glob("euclid_*.fits.gz")))

# %%
# Bands go from blue to red; a channel may be the mean of several. Once aligned, both show the same sky.
pair = align(rubin, euclid, region="overlap")
figure = Figure(figsize=(9, 4.6), layout="constrained")
left, right = figure.subplots(1, 2)
left.imshow(rgb(pair.rubin, ("g", "r", ("i", "z"))), origin="lower")
left.set(title="Rubin g, r, i + z", xticks=[], yticks=[])
right.imshow(rgb(pair.euclid, ("VIS", "Y", "H"), stretch=2), origin="lower")
right.set(title="Euclid VIS, Y, H", xticks=[], yticks=[])

# %%
# The fluxes of the first three objects in all ten bands.
table = DETRJEPA.from_pretrained().catalog(rubin, euclid)
sed = plot_sed(table, [1, 2, 3])
