# Licensed under a 3-clause BSD style license - see LICENSE
"""Fields with truth: read from folders, or drawn from fixed seeds when first asked for."""

from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from astropy.table import QTable

from jaisp.evaluation.tuning import Field
from jaisp.exceptions import ConfigError, FileError, suggest
from jaisp.io import read_euclid, read_rubin
from jaisp.surveys import EUCLID, RUBIN

__all__ = ["DEPTHS", "KINDS", "SPLITS", "Folders", "Skies", "read_field"]

DEPTHS = ("ten_year", "dp1", "deep")
KINDS = {
    "plain": {"bright_stars": [False], "galaxies": ["sersic"]},
    "hard": {"bright_stars": [True, True, False], "galaxies": ["knots", "sersic"]},
}
_PSFS = ("kolmogorov", "airy", "moffat")
_ROTATIONS = (0.0, 20.0, 45.0, 75.0, 130.0, 200.0)
#: Seeds of the skies by what they are for, far from those of `jaisp simulate` and of training, which count
#: from 0.
SPLITS = {
    "calibration": 6_000_000,
    "validation": 7_000_000,
    "test": 8_000_000,
    "embedding": 9_000_000,
    "measurement": 11_000_000,
}
_STEP = 10_000  # between the skies of one seed and the next
_MOST = 100  # fields of a kind, and seeds: more would be the skies of another kind, or of another split


def read_field(folder, *, surveys="both", bands=()):
    """
    Images and truth of a folder that `jaisp.simulation.simulate` wrote.

    Parameters
    ----------
    folder : path-like
        Holds ``rubin_*.fits``, ``euclid_*.fits`` (either may be missing) and ``truth.fits``.
    surveys : {"both", "rubin", "euclid"}
        Surveys to read.
    bands : sequence of str
        Bands to read, e.g. ``("i", "VIS")``; all if empty.

    Returns
    -------
    `~jaisp.evaluation.Field`
    """
    folder, images = Path(folder), {}
    if not (folder / "truth.fits").is_file():
        raise FileError(f"{str(folder)!r} has no truth.fits; give folders that 'jaisp simulate' wrote")
    for survey, read in ((RUBIN, read_rubin), (EUCLID, read_euclid)):
        images[survey.name] = None
        files = sorted(folder.glob(f"{survey.name}_*.fits*"))
        if files and surveys in ("both", survey.name):
            image = read(files)
            wanted = [band for band in image.bands if not bands or band in bands]
            images[survey.name] = image.select(wanted) if wanted else None
    return Field(images["rubin"], images["euclid"], QTable.read(folder / "truth.fits"))


@dataclass
class Folders:
    """
    Fields that someone else drew, read anew each time: memory holds one at a time.

    Parameters
    ----------
    folders : sequence of path-like
        As for `read_field`.
    surveys, bands
        As for `read_field`.
    """

    folders: list
    surveys: str = "both"
    bands: tuple = ()

    def __iter__(self):
        for folder in self.folders:
            yield read_field(folder, surveys=self.surveys, bands=self.bands)

    def __len__(self):
        return len(self.folders)


@dataclass
class Skies:
    """
    Fields of one kind, drawn when first asked for and read anew each time: memory holds one at a time.

    PSFs, the angle between the surveys and what ``kind`` lists alternate from field to field.

    Parameters
    ----------
    folder : path-like
        Where they are kept between runs.
    split : {"calibration", "validation", "test", "embedding", "measurement"}
        Each has its own seeds.
    depth : {"ten_year", "dp1", "deep"}
        Depth of Rubin.
    kind : {"plain", "hard"}
        Whether there are bright stars and knotty galaxies.
    n_fields : int
        Number of fields, up to 100.
    size : float
        Side of a field in arcmin, from 0.2 to 20.
    surveys, bands
        As for `read_field`.
    seed : int
        Another number, from 0 to 99, gives other skies.
    """

    folder: Path
    split: str
    depth: str
    kind: str
    n_fields: int
    size: float
    surveys: str = "both"
    bands: tuple = ()
    seed: int = 0

    def __post_init__(self):
        for name, allowed in (("split", SPLITS), ("depth", DEPTHS), ("kind", KINDS)):
            value = getattr(self, name)
            if value not in allowed:
                raise ConfigError(
                    f"unknown {name} {value!r} of a sky{suggest(value, allowed)}; "
                    f"allowed: {', '.join(allowed)}"
                )
        for name, first, last in (("n_fields", 1, _MOST), ("seed", 0, _MOST - 1)):
            value = getattr(self, name)
            if not first <= value <= last:
                raise ConfigError(f"{name} of a sky is {value}; allowed: {first} to {last}")
        if not 0.2 <= self.size <= 20:  # what `simulate` draws, said before anything is written
            raise ConfigError(f"size of a sky is {self.size} arcmin; allowed: 0.2 to 20 arcmin")

    def paths(self):
        """Folders of the fields; one that is missing is drawn first."""
        from jaisp.simulation import simulate

        for k in range(self.n_fields):
            mark = f"_{self.seed}" if self.seed else ""
            folder = Path(self.folder) / self.depth / self.kind / f"{self.split}_{k:02d}_{self.size:g}{mark}"
            if not (folder / "field_000" / "truth.fits").exists():
                options = {key: values[k % len(values)] for key, values in KINDS[self.kind].items()}
                options |= {"psf": _PSFS[k % len(_PSFS)], "rotation": _ROTATIONS[k % len(_ROTATIONS)]}
                seed = SPLITS[self.split] + _STEP * self.seed
                seed += 1000 * DEPTHS.index(self.depth) + 100 * list(KINDS).index(self.kind) + k
                _draw_whole(simulate, folder, seed=seed, size_arcmin=self.size, depth=self.depth, **options)
            yield folder / "field_000"

    def __iter__(self):
        for folder in self.paths():
            yield read_field(folder, surveys=self.surveys, bands=self.bands)

    def __len__(self):
        return self.n_fields


def _draw_whole(simulate, folder, **options):
    """Draw a field beside its place and move it there when it is whole."""
    folder.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(dir=folder, prefix=".part-") as temporary:
        simulate(temporary, n_tiles=1, **options)
        (Path(temporary) / "field_000").replace(folder / "field_000")
