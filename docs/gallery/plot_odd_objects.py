# Licensed under a 3-clause BSD style license - see LICENSE
"""
Find odd objects, and more of the same
======================================

The embedding of an object is its place on a manifold of appearances. Far from all others lies what is odd;
near an object that you know lies what looks like it: so one seeks, say, lenses from one lens.
"""

from importlib.resources import files

import numpy as np

from jaisp import DETRJEPA
from jaisp.catalog import flag_value, most_similar, oddness, plot_cutouts, plot_embedding
from jaisp.io import read_euclid, read_rubin

folder = files("jaisp") / "data" / "demo"
rubin = read_rubin(sorted(folder.glob("rubin_*.fits.gz")))
euclid = read_euclid(sorted(folder.glob("euclid_*.fits.gz")))
table = DETRJEPA.from_pretrained().catalog(rubin, euclid)

# %%
# What is faint or cut by the edge is odd for dull reasons. Leave it out first.
dull = flag_value("edge") | flag_value("large_source")
significance = table["rubin_i_flux"] / table["rubin_i_flux_err"]
bright = table[(significance > 5) & (table["flags"] & dull == 0)]
print(f"{len(bright)} of {len(table)} objects are left")

# %%
# The four oddest.
odd = bright["id"][np.argsort(-oddness(bright))[:4]]
oddest = plot_cutouts(bright, (rubin, euclid), odd)

# %%
# On the map of the manifold, coloured by the probability of being a star.
manifold = plot_embedding(bright, "star_probability", label=odd)

# %%
# One object, and the five most similar to it. A high cosine says "looks alike to the network", no more.
chosen = 0
rows, similarity = most_similar(bright, 5)
print(np.round(similarity[chosen], 2))
alike = plot_cutouts(bright, (rubin, euclid), bright["id"][[chosen, *rows[chosen]]])
