# Licensed under a 3-clause BSD style license - see LICENSE
"""
See where a slot looks
======================

A slot has three ways of looking: a window of fine features around its position, attention to the other slots,
and attention to the whole tile in tokens of 1.6 arcsec. The last can be drawn over the image.
"""

from importlib.resources import files

import numpy as np

from jaisp import DETRJEPA
from jaisp.catalog import plot_attention, slot_attention
from jaisp.io import align, read_euclid, read_rubin

folder = files("jaisp") / "data" / "demo"
rubin = read_rubin(sorted(folder.glob("rubin_*.fits.gz")))
euclid = read_euclid(sorted(folder.glob("euclid_*.fits.gz")))
model = DETRJEPA.from_pretrained()
pair = align(rubin, euclid)
table = model.catalog(rubin, euclid)

# %%
# Three blended objects: the mean over heads and layers. The redder a token, the more the slot drew on it.
# Most of the attention goes to the wider surroundings: what an object itself looks like comes from the
# window.
blends = table["id"][table["n_blended"] > 1][:3]
mean = plot_attention(model, table, pair, blends)

# %%
# The first layer alone, for the slots that Rubin's images give without Euclid's.
held = table["id"][(table["n_blended"] > 1) & ~table["rubin_slot"].mask][:3]
first = plot_attention(model, table, pair, held, view="rubin", layer=0)

# %%
# The numbers behind the picture, here how many tokens share half of the attention of a slot.
look = slot_attention(model, table, pair, blends[:1])[0]
for layer, weights in enumerate(look.weights):
    share = np.cumsum(np.sort(weights.ravel())[::-1])
    print(
        f"layer {layer}: half of the attention on {np.searchsorted(share, 0.5) + 1} of {weights.size} tokens"
    )
