# Licensed under a 3-clause BSD style license - see LICENSE
"""
Cross-match with another catalogue
==================================

The positions are `~astropy.coordinates.SkyCoord`, with errors, so Astropy's matching takes them as they are.
The other catalogue here is the truth of the simulated example.
"""

from importlib.resources import files

import astropy.units as u
import numpy as np
from astropy.table import QTable
from matplotlib.figure import Figure

from jaisp import DETRJEPA
from jaisp.io import read_euclid, read_rubin

folder = files("jaisp") / "data" / "demo"
rubin = read_rubin(sorted(folder.glob("rubin_*.fits.gz")))
euclid = read_euclid(sorted(folder.glob("euclid_*.fits.gz")))
table = DETRJEPA.from_pretrained().catalog(rubin, euclid)
other = QTable.read(folder / "truth.fits")
other = other[other["snr"] > 10]

# %%
# The nearest in the other catalogue, kept only if it is near, and if each is the other's nearest: a one-sided
# match would give one source to several rows in crowds.
mine, theirs = table["sky_centroid"], other["sky_centroid"]
there, separation, _ = mine.match_to_catalog_sky(theirs)
back, _, _ = theirs.match_to_catalog_sky(mine)
good = (separation < 0.3 * u.arcsec) & (back[there] == np.arange(len(table)))
print(f"{good.sum()} of {len(table)} rows and of {len(other)} sources match one to one")

# %%
# In units of their errors the differences should have a spread near 1 (robust, as blends have tails).
matched, source = table[good], theirs[there[good]]
east, north = (offset.to_value(u.mas) for offset in source.spherical_offsets_to(matched["sky_centroid"]))
for name, difference in (("ra", east), ("dec", north)):
    pull = difference / matched[f"{name}_err"].to_value(u.mas)
    spread = 1.4826 * np.median(np.abs(pull))
    print(f"{name}: median {np.median(difference):+.1f} mas, spread of the pulls {spread:.2f}")

figure = Figure(figsize=(5, 4.4), layout="constrained")
panel = figure.subplots()
points = panel.scatter(east, north, c=matched["activity"], s=18)
panel.set(xlim=(150, -150), ylim=(-150, 150), xlabel="east (mas)", ylabel="north (mas)", aspect="equal")
figure.colorbar(points, ax=panel, label="activity")
