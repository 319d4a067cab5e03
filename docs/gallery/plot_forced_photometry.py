# Licensed under a 3-clause BSD style license - see LICENSE
"""
Fluxes at places of your own
============================

`~jaisp.catalog.measure` is the fit behind the catalogue, without the network: given places and shapes it
solves for the fluxes of all bands, neighbours included. Here Rubin is measured where Euclid's catalogue has
objects, as forced photometry does; the places need not come from jaisp.
"""

from importlib.resources import files

import astropy.units as u
import numpy as np
from matplotlib.figure import Figure

from jaisp import DETRJEPA
from jaisp.catalog import OffsetField, Sources, measure
from jaisp.io import align, read_euclid, read_rubin

folder = files("jaisp") / "data" / "demo"
rubin = read_rubin(sorted(folder.glob("rubin_*.fits.gz")))
euclid = read_euclid(sorted(folder.glob("euclid_*.fits.gz")))
model = DETRJEPA.from_pretrained()
known = model.catalog(euclid=euclid)
both = model.catalog(rubin, euclid)

# %%
# Where to measure, on the pair's grid: that of Euclid, whose positions differ from Rubin's by an offset which
# the catalogue of both has measured. Shapes are those of Euclid; points have none.
pair = align(rubin, euclid)
offset = OffsetField.from_dict(both.meta["astrometric_offset"]["field"])
x, y = pair.wcs.world_to_pixel(known["sky_centroid"])
minor, major = (known[f"semi{axis}_axis"].to_value(u.arcsec) for axis in ("minor", "major"))
ellipticity = (major - minor) / np.maximum(major + minor, 1e-9)
angle = 2 * known["orientation"].to_value(u.rad)
places = Sources(
    x=x,
    y=y,
    position_err=np.hypot(known["ra_err"], known["dec_err"]).to_value(u.arcsec) / 0.1,
    half_light_radius=known["half_light_radius"].to_value(u.arcsec),
    e1=ellipticity * np.cos(angle),
    e2=ellipticity * np.sin(angle),
    is_point=known["half_light_radius"] == 0,
)

# %%
# With ``refine=False`` the places stay as they are, and no band tells of another's flux. Bands count from
# Rubin's *u* to Euclid's *H*.
forced = measure(pair, places, refine=False, offset=offset).with_model_errors(places.is_point)
flux, error = forced.flux[:, 3], forced.flux_err[:, 3]
print(f"{np.sum(flux > 5 * error)} of {len(known)} objects of Euclid have a flux above 5 sigma in i")

# %%
# Beside the fit of both surveys, which found the places and shapes anew.
nearest, separation, _ = known["sky_centroid"].match_to_catalog_sky(both["sky_centroid"])
good = (separation < 0.2 * u.arcsec) & np.isfinite(error)
joint = both["rubin_i_flux"][nearest[good]].to_value(u.nJy)
print(f"median ratio {np.median(flux[good] / joint):.3f}")

figure = Figure(figsize=(5, 4.4), layout="constrained")
panel = figure.subplots()
panel.errorbar(joint, flux[good], error[good], fmt="o", ms=4, lw=1)
panel.plot([10, 1e5], [10, 1e5], color="0.6", lw=1)
panel.set(xscale="log", yscale="log", xlabel="i of the catalogue (nJy)", ylabel="i, forced (nJy)")
panel.set(xlim=(20, 2e4), ylim=(20, 2e4))
