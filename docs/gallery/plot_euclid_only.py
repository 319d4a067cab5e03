# Licensed under a 3-clause BSD style license - see LICENSE
"""
One survey, or few bands
========================

Any subset of the ten bands works. Here: how many objects both surveys, Euclid alone and VIS alone give on the
same sky, and how sure each is.
"""

from importlib.resources import files

import numpy as np
from matplotlib.figure import Figure

from jaisp import DETRJEPA
from jaisp.io import read_euclid, read_rubin

folder = files("jaisp") / "data" / "demo"
rubin = read_rubin(sorted(folder.glob("rubin_*.fits.gz")))
euclid = read_euclid(sorted(folder.glob("euclid_*.fits.gz")))
model = DETRJEPA.from_pretrained()

# %%
# ``region="euclid"`` keeps to the sky of the Euclid image, so that the three are comparable.
inputs = {"both": (rubin, euclid), "Euclid": (None, euclid), "VIS only": (None, euclid.select(["VIS"]))}
tables = {name: model.catalog(*images, region="euclid") for name, images in inputs.items()}
for name, table in tables.items():
    print(f"{name:10} {len(table):4} objects, {(table['activity'] > 0.9).sum():4} with activity above 0.9")

# %%
# A flux of a band without an image is NaN, and the flag ``band_missing`` is set.
print(np.isnan(tables["VIS only"]["euclid_h_flux"]).all())

figure = Figure(figsize=(6, 4), layout="constrained")
panel = figure.subplots()
for name, table in tables.items():
    magnitude = 31.4 - 2.5 * np.log10(np.maximum(table["euclid_vis_flux"].value, 1e-3))
    panel.hist(magnitude, np.arange(18, 29, 0.5), histtype="step", label=name, lw=1.8)
panel.set(xlabel="VIS (AB mag)", ylabel="objects")
panel.legend()
