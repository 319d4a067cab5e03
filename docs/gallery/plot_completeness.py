# Licensed under a 3-clause BSD style license - see LICENSE
"""
Measure completeness against a truth
====================================

For simulated skies the true sources are known; for your own images inject some. `jaisp.evaluation` counts
what was found, one to one, and says how sure the count is.
"""

from importlib.resources import files

from astropy.table import QTable

from jaisp import DETRJEPA
from jaisp.evaluation import plot_completeness, score
from jaisp.io import read_euclid, read_rubin

folder = files("jaisp") / "data" / "demo"
rubin = read_rubin(sorted(folder.glob("rubin_*.fits.gz")))
euclid = read_euclid(sorted(folder.glob("euclid_*.fits.gz")))
truth = QTable.read(folder / "truth.fits")
model = DETRJEPA.from_pretrained()

# %%
# Rows of a low activity are kept, so that the whole trade of purity for completeness can be drawn from them.
inputs = {"both": (rubin, euclid), "Rubin alone": (rubin, None), "Euclid alone": (None, euclid)}
scores = {}
for name, images in inputs.items():
    table = model.catalog(*images, activity=0.1)
    scores[name] = score(table["sky_centroid"], table["activity"], truth)
    print(f"{name:13} {scores[name]}")

# %%
# Completeness where activity is above 0.5. The truth covers Rubin's sky, of which Euclid sees a part: what
# lies outside counts as missed for Euclid alone.
figure = plot_completeness(
    scores, edges=[5, 7, 10, 20, 50, 200], threshold=0.5, label="joint signal-to-noise ratio"
)

# %%
# By the distance to the nearest other source: what blends cost.
blends = plot_completeness(
    scores, "nearest", [0, 0.5, 1, 1.5, 2, 4], threshold=0.5, label="nearest other source (arcsec)"
)
