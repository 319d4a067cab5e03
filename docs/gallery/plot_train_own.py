# Licensed under a 3-clause BSD style license - see LICENSE
"""
Train on your own tiles
=======================

Weights that were trained on simulated skies can be adapted to yours: sources are injected into your images,
and the network learns to find them. This is mode C of :doc:`/guide/training`, cut down to two steps so that
it runs here. A real run takes hundreds of them, and hours on a CPU.
"""

import json
import shutil
from importlib.resources import files
from pathlib import Path
from tempfile import mkdtemp

from jaisp import DETRJEPA
from jaisp.catalog import plot_catalog
from jaisp.io import read_euclid, read_rubin
from jaisp.training import check, load_config, train

# %%
# A folder for each pair of images, with ``rubin*.fits`` and ``euclid*.fits`` in it. Here the example is the
# only one; tiles are cut from it, whole stripes of which are kept for the validation.
work = Path(mkdtemp())
(work / "pairs" / "field_1").mkdir(parents=True)
for path in (files("jaisp") / "data" / "demo").iterdir():
    if path.name in ("rubin_g.fits.gz", "rubin_i.fits.gz", "euclid_VIS.fits.gz", "euclid_H.fits.gz"):
        shutil.copy(path, work / "pairs" / "field_1")

# %%
# One file says everything. For a real run see the recipes of the guide: 600 steps and more.
(work / "adapt.toml").write_text(f"""
[objective]
kind = "injection"
weights = "bundled"

[data]
folder = "{work / "pairs"}"
cache = "{work / "cache"}"
tile_size = 128
workers = 0
n_validation = 2

[optimizer]
steps = 2
batch_size = 2
validate_every = 2
log_every = 1
learning_rate = 1e-4
""")
config = load_config(work / "adapt.toml")

# %%
# First a check, as ``jaisp train adapt.toml --check`` does it: one step, and the speed to expect.
told = check(config)
print(f"{told['train/model_tiles_per_second']:.1f} tiles/s")

# %%
# Then the run; ``jaisp train adapt.toml -o run`` is the same.
weights = train(config, work / "run")
log = [json.loads(line) for line in (work / "run" / "metrics.jsonl").read_text().splitlines()]
for name in ("train/loss", "val/f1_joint", "val/similarity", "val/shuffled_similarity"):
    values = [line[name] for line in log if name in line]
    if values:
        print(f"{name:25} {values[-1]:.3f}")

# %%
# The new weights are used like the bundled ones. Their activity is not calibrated any more: see the guide.
model = DETRJEPA.from_pretrained(weights)
rubin = read_rubin([work / "pairs" / "field_1" / f"rubin_{band}.fits.gz" for band in "gi"])
euclid = read_euclid([work / "pairs" / "field_1" / f"euclid_{band}.fits.gz" for band in ("VIS", "H")])
table = model.catalog(rubin, euclid)
print(len(table), "objects")
figure = plot_catalog(table, (rubin, euclid), label=False)
