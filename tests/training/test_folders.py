# Licensed under a 3-clause BSD style license - see LICENSE
"""Own images to train on: what is read, what is refused, sources injected into them."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from astropy.io import fits
from astropy.wcs import WCS

from jaisp.exceptions import ConfigError, FileError, ImageError, OverlapError
from jaisp.image import SurveyImage
from jaisp.simulation import write_euclid, write_rubin
from jaisp.training import TrainingConfig, check, load_config
from jaisp.training.folders import FolderConfig, TileBank, find_pairs, load_tiles, turn_tile
from jaisp.training.injection import inject_sources
from jaisp.training.losses import set_loss
from jaisp.training.objectives.injection import Injection

SIZE = 320
TINY = {"channels": [8, 8, 8], "dim": 32, "n_backbone_layers": 1, "n_decoder_layers": 1}
QUICK = {"batch_size": 2, "precision": "float32", "threads": 1, "device": "cpu"}


def make_wcs(size, scale, dec):
    wcs = WCS(naxis=2)
    wcs.wcs.ctype = "RA---TAN", "DEC--TAN"
    wcs.wcs.crval = 53.0, dec
    wcs.wcs.crpix = (size + 1) / 2, (size + 1) / 2
    wcs.wcs.cdelt = -scale / 3600, scale / 3600
    return wcs


def write_pair(folder, *, rubin=True, euclid=True, dec=-28.0, nan=False):
    """Noise with a Gaussian source in the middle; ``nan`` spoils nearly all pixels of Euclid."""
    rng = np.random.default_rng(1)
    for wanted, bands, size, scale, name in (
        (rubin, "gi", SIZE // 2, 0.2, "rubin"),
        (euclid, ("VIS", "H"), SIZE, 0.1, "euclid"),
    ):
        if not wanted:
            continue
        steps = np.arange(size) - size / 2
        source = np.exp(-0.5 * (steps**2 + steps[:, None] ** 2) / (0.4 / scale) ** 2)
        data = {band: rng.normal(0, 2, (size, size)) + 50 * source for band in bands}
        if nan and name == "euclid":
            for values in data.values():
                values[8:] = np.nan
        variance = {band: np.full((size, size), 4.0) for band in bands}
        place = dec if name == "euclid" else -28.0
        image = SurveyImage(data, make_wcs(size, scale, place), survey=name, variance=variance)
        write = write_rubin if name == "rubin" else write_euclid
        write(image, folder)


@pytest.fixture(scope="module")
def pairs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pairs")
    for number in range(2):
        write_pair(folder / f"field_{number}")
    return folder


def test_tiles_are_cut_once_and_split(pairs, tmp_path, monkeypatch):
    config = FolderConfig(folder=str(pairs), tile_size=96)
    training, validation = load_tiles(config, tmp_path)
    assert len(training) > len(validation) >= 2
    tile = training[0]
    assert tile["rubin_snr"].shape == (6, 48, 48)
    assert tile["euclid_snr"].dtype == np.float32
    assert (tile["rubin_noise"] > 0).tolist() == [False, True, False, True, False, False]
    everything = np.concatenate(
        [bank[i]["euclid_snr"][0].ravel() for bank in (training, validation) for i in range(len(bank))]
    )
    assert everything.max() > 15  # the sources are there
    monkeypatch.setattr("jaisp.training.folders.read_rubin", None)  # not read again
    again, _ = load_tiles(config, tmp_path)
    np.testing.assert_array_equal(again[1]["euclid_snr"], training[1]["euclid_snr"])


def test_a_new_companion_makes_new_tiles(tmp_path):
    write_pair(tmp_path / "pair")
    with fits.open(tmp_path / "pair" / "euclid_VIS.fits", mode="update") as hdus:
        del hdus["PSF"]
    companion = tmp_path / "pair" / "euclid_VIS_psf.fits"
    config, peaks = FolderConfig(folder=str(tmp_path / "pair"), tile_size=96), []
    for sigma in (1.0, 3.0):
        square = (np.arange(21) - 10) ** 2
        psf = np.exp(-0.5 * (square + square[:, None]) / sigma**2)
        fits.writeto(companion, (psf / psf.sum()).astype(np.float32), overwrite=True)
        peaks.append(load_tiles(config, tmp_path / "cache")[0][0]["euclid_psf"][0].max())
    assert peaks[0] > 3 * peaks[1]


def test_companions_are_no_images(tmp_path):
    names = ("rubin_i", "rubin_i_PSF", "euclid_VIS", "euclid_VIS_rms", "euclid_VIS_FLAG", "euclid_VIS_psf")
    for name in names:
        (tmp_path / f"{name}.fits").touch()
    (pair,) = find_pairs(tmp_path).values()
    assert pair == ([str(tmp_path / "rubin_i.fits")], [str(tmp_path / "euclid_VIS.fits")])


def test_half_written_tiles_are_not_taken_for_whole(tmp_path, monkeypatch):
    bank = TileBank({"rubin_noise": np.zeros((2, 6)), "euclid_noise": np.zeros((2, 4))})
    monkeypatch.setattr(np, "save", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        bank.save(tmp_path / "training")
    assert not list(tmp_path.iterdir())
    monkeypatch.undo()
    bank.save(tmp_path / "training")
    assert len(TileBank.load(tmp_path / "training")) == 2


def test_a_validation_share_that_leaves_nothing_to_train_on(pairs, tmp_path):
    config = FolderConfig(folder=str(pairs), tile_size=160, validation_share=0.95)
    with pytest.raises(ConfigError, match=r"validation_share = 0.95 of \d+ tiles of 160 pixels leaves none"):
        load_tiles(config, tmp_path)


def test_turned_tiles_keep_the_surveys_together():
    tile = {"rubin_snr": np.zeros((6, 8, 8)), "euclid_snr": np.zeros((4, 16, 16)), "rubin_noise": np.ones(6)}
    tile["rubin_snr"][:, 1, 3] = 1
    tile["euclid_snr"][:, 2:4, 6:8] = 1
    seen = set()
    for seed in range(40):
        turned = turn_tile(tile, np.random.default_rng(seed))
        (y,), (x,) = np.nonzero(turned["rubin_snr"][0])
        assert turned["euclid_snr"][0][2 * y : 2 * y + 2, 2 * x : 2 * x + 2].sum() == 4
        seen.add((y, x))
    assert len(seen) == 8


def test_injected_sources_are_where_the_truth_says(pairs, tmp_path):
    config = FolderConfig(folder=str(pairs), tile_size=160)
    tile = load_tiles(config, tmp_path)[0][0]
    rng = np.random.default_rng(4)
    new, truth = inject_sources(tile, rng, density=100.0, faint_limit=26.0, offset=0.0)
    for survey, band, scale in (("rubin", 3, 2), ("euclid", 0, 1)):
        added = new[f"{survey}_snr"][band] - tile[f"{survey}_snr"][band]
        noise = tile[f"{survey}_noise"][band]
        index = band if survey == "rubin" else 6
        inside = (np.abs(truth["x"] - 79.5) < 64) & (np.abs(truth["y"] - 79.5) < 64)
        k = np.flatnonzero(inside)[np.argmax(truth["flux"][inside, index])]
        x, y = ((truth[name][k] + 0.5) / scale - 0.5 for name in "xy")
        j, i = round(float(y)), round(float(x))
        near = added[max(j - 2, 0) : j + 3, max(i - 2, 0) : i + 3]
        assert near.max() >= 0.9 * added[j - 4 : j + 5, i - 4 : i + 5].max()
        # Flux of what was added: of those inside all, of those at the edge a part.
        total, flux = added.sum() * noise, truth["flux"][:, index]
        assert 0.85 * flux[inside].sum() < total < 1.05 * flux.sum()
        assert truth["band_snr"][k, index] > 0
    missing = [0, 2, 4, 5]
    assert not truth["band_snr"][:, missing].any()
    assert not (new["rubin_snr"][missing] != 0).any()


def objective_config(kind, pairs, cache, **data):
    return TrainingConfig.from_dict(
        {
            "objective": {"kind": kind},
            "model": TINY,
            "data": {"folder": str(pairs), "tile_size": 128, "cache": str(cache), "workers": 0, **data},
            "optimizer": QUICK,
        }
    )


@pytest.mark.parametrize("kind", ["labelfree", "injection"])
def test_one_step_and_validation_on_own_images(kind, pairs, tmp_path):
    from jaisp.training.objectives import objective_class

    config = objective_config(kind, pairs, tmp_path)
    assert "train/jepa" in check(config)
    objective = objective_class(kind)(config, tmp_path)
    metrics = objective.validate(objective.model)
    assert ("val/proposals_found" if kind == "labelfree" else "val/f1_joint") in metrics


def test_what_the_images_hold_already_is_neither_right_nor_wrong(pairs, tmp_path):
    config = objective_config("injection", pairs, tmp_path)
    objective = Injection(config, tmp_path)
    ((_, truth),) = objective.batches(0, 1)
    unlabelled = truth["unlabelled"]
    assert unlabelled.any()
    snr = objective.view_snr(truth, "joint")
    assert (snr[unlabelled] == 0.5 * (config.loss.positive_snr + config.loss.ignore_snr)).all()
    place = torch.stack([truth["x"], truth["y"]], dim=-1)
    n = place.shape[1]
    alone = {name: values * 0 if name == "band_snr" else values for name, values in truth.items()}
    for logit in (-9.0, 9.0):  # an image that holds nothing but what it held before
        output = {
            "position": place + 0.5,
            "error": torch.ones(2, n, 2),
            "activity_logit": torch.full((2, n), logit),
            "valid": unlabelled,
            **{key: torch.ones_like(truth[key]) for key in ("flux_asinh", "log_radius", "ellipticity")},
            "star_logit": torch.zeros(2, n),
        }
        losses, _ = set_loss([output], alone, objective.view_snr(alone, "joint"), config.loss)
        assert all(value == 0 for value in losses.values())


@pytest.mark.parametrize(
    ("make", "error", "text"),
    [
        (lambda folder: None, FileError, r"holds no pair of images; put rubin\*.fits"),
        (
            lambda folder: write_pair(folder / "one", euclid=False),
            FileError,
            "of Rubin but none of Euclid",
        ),
        (
            lambda folder: write_pair(folder / "one", rubin=False),
            FileError,
            "of Euclid but none of Rubin",
        ),
        (lambda folder: write_pair(folder / "far", dec=-29.0), OverlapError, "pair 'far': .* share no sky"),
        (
            lambda folder: write_pair(folder / "bad", nan=True),
            ImageError,
            "pair 'bad' has no usable tile",
        ),
    ],
)
def test_bad_folders(make, error, text, tmp_path):
    folder = tmp_path / "images"
    folder.mkdir()
    make(folder)
    with pytest.raises(error, match=text) as caught:
        check(objective_config("labelfree", folder, tmp_path / "cache"))
    assert "\n" not in str(caught.value)


def test_missing_folder_and_no_space(pairs, tmp_path, monkeypatch):
    with pytest.raises(FileError, match=r"folder '.*none' does not exist"):
        find_pairs(tmp_path / "none")
    monkeypatch.setattr("jaisp.training._run_files.shutil.disk_usage", lambda _: SimpleNamespace(free=1))
    with pytest.raises(FileError, match=r"no space left for \d+ tiles: .* MB needed"):
        load_tiles(FolderConfig(folder=str(pairs), tile_size=96), tmp_path)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[data]\nfolder = 'x'\n", r"unknown key 'folder' for DataConfig"),
        ("[objective]\nkind = 'labelfre'\n", r"unknown objective 'labelfre' \(did you mean 'labelfree'\?\)"),
        ("[objective]\nkind = 'labelfree'\n[loss]\nstar = 1.0\n", "unknown key 'star' for LabelFreeLoss"),
        ("[objective]\nkind = 'labelfree'\n[data]\nfolder = 'x'\nn_scenes = 3\n", "contradicts n_scenes"),
        ("[objective]\nkind = 'labelfree'\n[data]\ntile_size = 100\n", "tile_size must be a multiple of 16"),
        (
            "[objective]\nkind = 'labelfree'\n[loss]\nadded_noise = 0.5\n",
            "added_noise 0.5 must be at",
        ),
        ("[objective]\nkind = 'injection'\n", r'"injection" needs \[data\] folder'),
        (
            "[objective]\nweights = 'bundled'\n[model]\ndim = 32\n",
            r"\[model\] contradicts weights",
        ),
    ],
)
def test_bad_configs(tmp_path, text, message):
    path = tmp_path / "config.toml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=message):
        load_config(path)
