# Licensed under a 3-clause BSD style license - see LICENSE
"""The objective of ObjectJEPA: truth for the cut-outs, contrast between those that position matches."""

import numpy as np
import torch
from torch.nn import functional

from jaisp.models import ObjectJEPA
from jaisp.models.layers import distances
from jaisp.training.losses import similarities
from jaisp.training.matching import assign
from jaisp.training.objectives.supervised import Supervised
from jaisp.training.regularizers import sigreg

__all__ = ["Contrast", "contrast", "match_within"]

_TEMPERATURE = 0.1
_PIXEL = 0.1  # arcsec


@torch.no_grad()
def match_within(first, second, radius):
    """
    Match the active objects of two views one-to-one by position alone.

    Parameters
    ----------
    first, second : dict
        Outputs of the model.
    radius : float
        Largest distance in arcsec.

    Returns
    -------
    tile, first_slot, second_slot : Tensor of int, shape (K,)
    """
    distance = _PIXEL * distances(first["position"], second["position"])
    active = [(output["activity_logit"] > 0) & output["valid"] for output in (first, second)]
    allowed = (distance < radius) & active[0][..., None] & active[1][:, None]
    pairs = [np.zeros((3, 0), int)]
    for tile, (cost, mask) in enumerate(zip(distance.cpu().numpy(), allowed.cpu().numpy(), strict=True)):
        rows, columns = assign(cost, mask)
        pairs.append(np.stack([np.full_like(rows, tile), rows, columns]))
    return torch.from_numpy(np.concatenate(pairs, axis=1)).to(distance.device)


def contrast(first, second, *, temperature=_TEMPERATURE):
    """
    InfoNCE (arXiv:1807.03748) in both directions: each vector must name its partner among all of the batch.

    Parameters
    ----------
    first, second : Tensor, shape (K, d)
        Row k of both belongs together; they need not be normalised.
    temperature : float
        Divides the cosines.

    Returns
    -------
    Tensor
        Scalar; ``log(K)`` for vectors that say nothing.
    """
    cosine = functional.normalize(first, dim=-1) @ functional.normalize(second, dim=-1).T
    own = torch.arange(len(first), device=first.device)
    logits = cosine / temperature
    return 0.5 * (functional.cross_entropy(logits, own) + functional.cross_entropy(logits.T, own))


class Contrast(Supervised):
    """
    Set loss from simulated truth; from ``jepa_start`` on also contrast between the surveys' objects.

    The views are matched by position within ``[model] match_radius``. See
    `~jaisp.training.objectives.Objective` for the interface.
    """

    model_class = ObjectJEPA

    def between_surveys(self, outputs, step):
        """Contrast of each pair of views (``jepa``), SIGReg of the matched objects, and gauges."""
        radius = self.model.config.match_radius
        jepa, regularizer, gauges = 0.0, 0.0, {}
        for one, other, weight in (
            ("rubin", "euclid", 0.5),
            ("rubin", "joint", 0.25),
            ("euclid", "joint", 0.25),
        ):
            tile, i, j = match_within(outputs[one], outputs[other], radius)
            z_one, z_other = outputs[one]["projection"][tile, i], outputs[other]["projection"][tile, j]
            if len(tile) < 8:
                jepa, regularizer = jepa + 0 * z_one.sum(), regularizer + 0 * z_one.sum()
                continue
            jepa = jepa + weight * contrast(z_one, z_other)
            if other == "euclid":
                regularizer = 0.5 * (sigreg(z_one) + sigreg(z_other))
                gauges = similarities(z_one, z_other)
        return {"jepa": jepa, "regularizer": regularizer}, gauges
