# Licensed under a 3-clause BSD style license - see LICENSE
"""Mode A: learning from pairs of images alone, without any truth."""

import dataclasses
from dataclasses import dataclass

import numpy as np
import torch
from torch.nn import functional

from jaisp.exceptions import ConfigError
from jaisp.models import band_dropout, crop_window
from jaisp.models.detrjepa import flux_units
from jaisp.models.layers import distances
from jaisp.simulation import NoiseBank, draw_tile
from jaisp.surveys import EUCLID, RUBIN
from jaisp.training.config import LossConfig
from jaisp.training.data import TileBatches
from jaisp.training.folders import FolderConfig, load_tiles, turn_tile
from jaisp.training.losses import heat_loss, position_loss
from jaisp.training.matching import match_truth
from jaisp.training.objectives.supervised import Supervised, autocast, slot_gauges
from jaisp.training.overlay import overlay_copies
from jaisp.training.proposals import find_sources
from jaisp.training.rendering import explain
from jaisp.training.validation import validate, validate_unlabelled
from jaisp.training.windows import shift_positions, window_truth

__all__ = ["LabelFree", "LabelFreeLoss", "UnlabelledBatches"]

_NEAR = 4.0  # pixels within which a slot stands for a proposal


@dataclass(frozen=True)
class LabelFreeLoss:
    """
    Weights of the terms of mode A, and what makes its student see less than its teacher.

    Parameters
    ----------
    heat, activity, position : float
        Finding the targets: proposals of the matched filter at first, slots that the fit needs later.
    render : float
        Slots must explain both images.
    flux, shape : float
        Heads learn the solved fluxes of the bands that the student sees; views of one survey learn the
        sizes and shapes of the joint view.
    dropped_band : float
        The same for fluxes of bands that the student does not see.
    jepa, readout, regularizer : float
        Predictive loss between matched slots of the two surveys, plain terms read off their embeddings, and
        what works against collapse.
    regularizer_kind, matching, window : str and float
        As in `~jaisp.training.config.LossConfig`.
    positive_snr, ignore_snr : float
        Significance in sigma above which a target is to be found; between the two it is neither.
    render_start : float
        Fraction of the steps after which slots are fitted to both images. Until then they only learn to find
        the proposals, in half the time: the many slots of a young network explain nothing. The fit begins at
        ``jepa_start`` at the latest.
    confirm_start : float
        Fraction of the steps after which the fit decides what a source is, instead of the proposals; 1 for
        never. In the one run that was measured F1 fell from .733 to .636 within 360 steps of it.
    added_noise : float
        The student's noise is up to this many times its teacher's.
    overlay : float
        Probability that a shifted copy of the tile lies over the tile that the student sees: it meets blends
        whose parts its teacher saw apart.
    survey_dropout, band_dropout : float
        Probability that the student lacks one survey, or some bands.
    """

    heat: float = 1.0
    activity: float = 1.0
    position: float = 0.5
    render: float = 1.0
    flux: float = 0.3
    shape: float = 0.3
    dropped_band: float = 0.1
    jepa: float = 1.0
    readout: float = 0.0
    regularizer: float = 0.05
    regularizer_kind: str = "sigreg"
    matching: str = "both"
    window: float = 0.75
    positive_snr: float = 5.0
    ignore_snr: float = 3.0
    render_start: float = 0.0
    confirm_start: float = 1.0
    added_noise: float = 2.0
    overlay: float = 0.0
    survey_dropout: float = 0.2
    band_dropout: float = 0.2

    def __post_init__(self):
        shared = dataclasses.fields(LossConfig)
        # What both have in common is refused there.
        LossConfig(**{item.name: getattr(self, item.name) for item in shared if hasattr(self, item.name)})
        if self.added_noise < 1:
            raise ConfigError(f"added_noise {self.added_noise} must be at least 1, which adds none")
        for name in ("overlay", "render_start"):
            if not 0 <= getattr(self, name) <= 1:
                raise ConfigError(f"{name} must be in [0, 1], not {getattr(self, name)}")


class UnlabelledBatches(TileBatches):
    """
    Batches of what the teacher and the student see of tiles.

    Items are dicts: ``student``, the tiles that the network sees; ``tiles`` and ``targets``, the pixels to
    be explained and the teacher's proposals; ``keep`` (B, 10), the student's bands. The truth of scenes is
    dropped.
    """

    def __init__(self, bank, *, added_noise=1.0, overlay=0.0, **options):
        super().__init__(bank, **options)
        self.added_noise, self.overlay = added_noise, overlay

    def __getitem__(self, step):
        rng = np.random.default_rng([self.seed, step])
        tiles = [self._tile(int(index), rng) for index in self._numbers(rng, step)]
        keep = torch.from_numpy(np.stack([self._dropout(rng, step) for _ in tiles]))
        tiles = {key: torch.from_numpy(np.stack([tile[key] for tile in tiles])) for key in tiles[0]}
        targets = find_sources(tiles)
        if self.overlay:
            tiles, targets = overlay_copies(tiles, targets, rng, self.overlay)
        student = band_dropout(self._noisier(tiles, rng), {RUBIN.name: keep[:, :6], EUCLID.name: keep[:, 6:]})
        return {
            "student": student,
            "tiles": tiles,
            "targets": targets,
            "keep": keep,
        }

    def _tile(self, index, rng):
        if hasattr(self.bank, "config"):  # simulated scenes
            if self._noise is None:  # made in the worker, so that it is not sent there
                self._noise = NoiseBank()
            tile, _ = draw_tile(self.bank[index], rng, self._noise, cutouts=self.bank.config.cutouts)
            return tile
        return turn_tile(self.bank[index], rng)

    def _noisier(self, tiles, rng):
        """Copies with noise added, by another factor for each tile and survey."""
        if self.added_noise == 1:
            return tiles
        tiles = dict(tiles)
        for survey in (RUBIN, EUCLID):
            snr, valid = tiles[f"{survey.name}_snr"], tiles[f"{survey.name}_valid"]
            factor = np.exp(rng.uniform(0, np.log(self.added_noise), (len(snr), 1, 1, 1))).astype(np.float32)
            more = rng.standard_normal(snr.shape, dtype=np.float32) * np.sqrt(factor**2 - 1)
            tiles[f"{survey.name}_snr"] = (snr + torch.from_numpy(more) * valid) / torch.from_numpy(factor)
            noise = tiles[f"{survey.name}_noise"]
            tiles[f"{survey.name}_noise"] = noise * torch.from_numpy(factor[:, :, 0, 0])
        return tiles


class LabelFree(Supervised):
    """
    Proposals, then slots that both images need; JEPA between the surveys from ``jepa_start`` on.

    See `~jaisp.training.objectives.Objective` for the interface.
    """

    data_class, loss_class = FolderConfig, LabelFreeLoss

    def load_data(self, folder, progress):
        """Tiles of the user's pairs, or simulated scenes."""
        if not self.config.data.folder:
            return super().load_data(folder, progress)
        return load_tiles(self.config.data, folder, progress=progress)

    def dataset(self, bank, seed, **options):
        """Batches of tiles of a bank, by number."""
        return UnlabelledBatches(bank, batch_size=self.config.optimizer.batch_size, seed=seed, **options)

    def hidden(self):
        """Options of `dataset` that say what the student does not get to see in training."""
        loss = self.config.loss
        return {"added_noise": loss.added_noise, "overlay": loss.overlay, **super().hidden()}

    def shown(self, batch):
        """The part of a batch that the network is shown."""
        return batch["student"]

    def losses(self, batch, step):
        """All terms of the objective for one batch, and gauges."""
        config, optimizer = self.config.loss, self.config.optimizer
        with_jepa = self.check or (step >= self.jepa_step and config.jepa > 0)
        confirmed = self.check or step >= config.confirm_start * optimizer.steps
        views = ("joint", "rubin", "euclid") if with_jepa else ("joint",)
        inputs = self.model.prepare(self.shown(batch))
        windows = self.windows(inputs, step) if with_jepa else {}
        features, layers = {}, {}
        with autocast(optimizer.precision, inputs["rubin"].device):
            for view in views:
                shown = crop_window(inputs, windows[view]) if view in windows else inputs
                features[view] = self.model.encode(shown, view)
                layers[view] = self.model.decode(features[view])
        proposals, joint = batch["targets"], layers["joint"][-1]
        targets, terms, spare, fit = proposals, {}, None, None
        if with_jepa or confirmed or step >= config.render_start * optimizer.steps:
            fit = explain_slots(joint, proposals, batch["tiles"])
            fitted = confirm(joint, fit, proposals)
            targets = fitted if confirmed else proposals
            terms = {"render": fit["misfit"]}
            # A slot on what the proposals lack but the fit needs is not punished (DropLoss, CutLER).
            spare = fit["chosen"] & (fit["significance"]["joint"] > config.ignore_snr)
        for view in views:
            share = 1.0 if not with_jepa else 0.5 if view == "joint" else 0.25
            there = window_truth(targets, windows[view]) if view in windows else targets
            snr = there[f"snr_{view}"]
            losses = finding_loss(layers[view], there, snr, config, spare if view == "joint" else None)
            losses["heat"] = heat_loss(features[view]["heat"], there, snr, config)
            if view == "joint":
                # Of the slots' own places nothing would be learned but to be sure of them.
                if confirmed:
                    losses["position"] = finding_loss(
                        layers[view], proposals, proposals["snr_joint"], config
                    )["position"]
                if fit:
                    losses.update(self._property_loss(joint, fit, batch["keep"]))
            else:
                known = window_truth(fitted, windows[view]) if view in windows else fitted
                losses.update(self._view_loss(layers[view][-1], known, batch["keep"], view))
                if view in windows:
                    shift_positions(layers[view][-1], windows[view])
            for name, value in losses.items():
                terms[name] = terms.get(name, 0.0) + share * value
        outputs = {view: layers[view][-1] for view in views}
        gauges = slot_gauges(joint)
        gauges["n_proposals"] = (proposals["snr_joint"] > config.positive_snr).sum().item() / len(
            batch["keep"]
        )
        if fit:
            needed = fit["chosen"] & (fit["significance"]["joint"] > config.positive_snr)
            gauges["n_needed"] = needed.sum().item() / len(batch["keep"])
        if with_jepa:
            self.model.heads.normalize(list(outputs.values()))
            losses, more = self.between_surveys(outputs, step)
            terms.update(losses)
            gauges.update(more)
        total = sum(getattr(config, name) * value for name, value in terms.items())
        return total, terms, gauges

    def _property_loss(self, joint, fit, keep):
        """The joint slots' flux heads learn the fluxes that the fit needs."""
        good = fit["chosen"] & (fit["significance"]["joint"] > self.config.loss.positive_snr)
        tile, slot = torch.nonzero(good, as_tuple=True)
        return self._flux_loss(joint["flux_asinh"][tile, slot], fit["flux"][tile, slot], keep[tile])

    def _view_loss(self, output, targets, keep, view):
        """Slots of one survey learn what the joint slots know: the other survey's fluxes, size and shape."""
        slot, source = match_truth(_places(output), targets, snr=targets[f"snr_{view}"])
        known = targets["known"][source[0], source[1]] & (
            targets["snr_joint"][source[0], source[1]] > self.config.loss.positive_snr
        )
        slot, source = slot[:, known], source[:, known]
        seen = keep[slot[0]].clone()
        seen[:, slice(6, 10) if view == "rubin" else slice(0, 6)] = False
        at, of = (slot[0], slot[1]), (source[0], source[1])
        losses = self._flux_loss(output["flux_asinh"][at], targets["flux"][of], seen)
        size = functional.smooth_l1_loss(
            output["log_radius"][at], targets["log_radius"][of], reduction="none", beta=0.3
        )
        shape = (output["ellipticity"][at] - targets["ellipticity"][of]).abs().mean(-1)
        losses["shape"] = (size + shape).sum() / max(1, slot.shape[1])
        return losses

    def _flux_loss(self, predicted, flux, seen):
        true = torch.asinh(flux / flux_units().to(flux))
        known = flux != 0  # the teacher lacks the band
        loss = functional.smooth_l1_loss(predicted, true, reduction="none", beta=0.3)
        return {
            name: (loss * mask).sum() / mask.sum().clamp_min(1)
            for name, mask in (("flux", known & seen), ("dropped_band", known & ~seen))
        }

    def validate(self, model):
        """Gauges that need no truth; on simulated scenes also scores against it: nothing learns from them."""
        if self.config.loss.jepa > 0:
            self._gather_statistics(model)
        metrics = validate_unlabelled(model, self.dataset(self.banks[1], 987, in_order=True))
        if not self.config.data.folder:
            metrics.update(validate(model, self.banks[1], batch_size=self.config.optimizer.batch_size))
        return metrics


def _places(output):
    """What matching by position needs of an output."""
    return {name: output[name] for name in ("position", "activity_logit", "valid")}


def explain_slots(joint, proposals, tiles):
    """
    Fit each tile by its active slots and those that stand for a proposal.

    Returns
    -------
    dict
        ``misfit`` (scalar), and for each slot ``chosen`` (B, N), ``flux`` (B, N, 10) and, for each view,
        ``significance`` (B, N).
    """
    slot, _ = match_truth(_places(joint), proposals, snr=proposals["snr_joint"], gate=_NEAR)
    chosen = (torch.sigmoid(joint["activity_logit"]) > 0.1) & joint["valid"]
    chosen[slot[0], slot[1]] = True
    flux = torch.zeros_like(joint["flux_asinh"])
    significance = {view: torch.zeros_like(joint["activity_logit"]) for view in ("joint", "rubin", "euclid")}
    misfits = []
    for number in range(len(chosen)):
        here = torch.nonzero(chosen[number])[:, 0]
        if not len(here):
            continue
        here = here[joint["activity_logit"][number, here].detach().argsort(descending=True)]
        position, shape = joint["position"][number, here], joint["ellipticity"][number, here]
        result = explain(
            {name: values[number] for name, values in tiles.items()},
            position[:, 0],
            position[:, 1],
            joint["log_radius"][number, here].exp(),
            shape[:, 0],
            shape[:, 1],
        )
        flux[number, here] = result.flux
        for view, values in result.significance.items():
            significance[view][number, here] = values
        # A saturated star must not be all that a batch learns from.
        misfits.append(result.misfit / result.misfit.detach().clamp_min(1.0))
    misfit = torch.stack(misfits).mean() if misfits else joint["position"].sum() * 0
    return {"misfit": misfit, "chosen": chosen, "flux": flux, "significance": significance}


@torch.no_grad()
def confirm(joint, fit, proposals):
    """
    Targets by the fit: slots with the significance that it gives them, and proposals that no slot is near.

    Returns
    -------
    dict of Tensor
        As the proposals, and of slots (``known``) the solved ``flux``, ``log_radius`` and ``ellipticity``.
    """
    place = torch.stack([proposals["x"], proposals["y"]], dim=-1)
    distance = distances(place, joint["position"]) + 1e9 * ~fit["chosen"][:, None]
    lonely = distance.amin(-1) > _NEAR
    blank = torch.zeros_like(proposals["x"])
    targets = {
        "x": torch.cat([joint["position"][..., 0], proposals["x"]], dim=1),
        "y": torch.cat([joint["position"][..., 1], proposals["y"]], dim=1),
        "known": torch.cat([fit["chosen"], blank.bool()], dim=1),
        "flux": torch.cat([fit["flux"], blank[..., None].expand(-1, -1, 10)], dim=1),
        "log_radius": torch.cat([joint["log_radius"], blank], dim=1),
        "ellipticity": torch.cat([joint["ellipticity"], blank[..., None].expand(-1, -1, 2)], dim=1),
    }
    for view, values in fit["significance"].items():
        both = [(values * fit["chosen"]).clamp_min(0), proposals[f"snr_{view}"] * lonely]
        targets[f"snr_{view}"] = torch.cat(both, dim=1)
    return targets


def finding_loss(layers, targets, snr, config, spare=None):
    """
    Activity and position of matched slots at every layer, without truth.

    Parameters
    ----------
    layers : list of dict
        Outputs of the decoder layers in one view.
    targets : dict of Tensor
        ``x``, ``y`` (B, M).
    snr : Tensor, shape (B, M)
        Their significance in this view; zero for padding.
    config : `LabelFreeLoss`
    spare : Tensor of bool, shape (B, N), optional
        Slots that are not punished for having no target.

    Returns
    -------
    dict of Tensor
        ``activity`` and ``position``.
    """
    activity = position = 0.0
    for output in layers:
        slot, source = match_truth(_places(output), targets, snr=snr)
        matched_snr = snr[source[0], source[1]]
        positive = matched_snr > config.positive_snr
        target = torch.zeros_like(output["activity_logit"])
        target[slot[0], slot[1]] = positive.float()
        weight = output["valid"].float()
        if spare is not None:
            weight = weight * ~spare
        # Matched ones count whether spared or not, but for those that are neither right nor wrong.
        found = matched_snr > config.ignore_snr
        certain = positive | ~found
        weight[slot[0], slot[1]] = certain.float()
        bce = functional.binary_cross_entropy_with_logits(output["activity_logit"], target, reduction="none")
        activity = activity + (bce * weight).sum() / positive.sum().clamp_min(1)
        deviations = position_loss(output, targets, slot[:, found], source[:, found])
        position = position + deviations.sum() / max(1, len(deviations))
    return {"activity": activity, "position": position}
