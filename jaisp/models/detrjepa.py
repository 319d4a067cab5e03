# Licensed under a 3-clause BSD style license - see LICENSE
"""DETR-JEPA: object slots for each survey and for both, with embeddings that can be compared between them."""

from contextlib import contextmanager

import torch
from torch import nn
from torch.nn import functional

from jaisp.exceptions import ImageError
from jaisp.models.backbone import Backbone
from jaisp.models.config import DETRJEPAConfig
from jaisp.models.decoder import Decoder, worth_a_query
from jaisp.models.inputs import TILE_KEYS, VIEWS, network_inputs
from jaisp.models.layers import FeedForward
from jaisp.models.pretrained import PretrainedMixin
from jaisp.models.slots import Slots
from jaisp.surveys import AB_ZERO_POINT, EUCLID, RUBIN

__all__ = ["DETRJEPA", "SlotHeads", "SlotModel", "flux_units"]

_N_BANDS = len(RUBIN.bands) + len(EUCLID.bands)
_FLUX_RANGE = -4.0, 14.0  # of a flux's arsinh in its unit: beyond, the network makes things up


def flux_units():
    """Flux (nJy) of each band where its scale turns logarithmic: the 1-sigma depth of `Band.depth`."""
    depths = torch.tensor([band.depth for survey in (RUBIN, EUCLID) for band in survey.bands])
    return 10 ** ((AB_ZERO_POINT - depths) / 2.5) / 5


class SlotHeads(nn.Module):
    """Fluxes, size, shape, star probability and embedding of a slot."""

    def __init__(self, config):
        super().__init__()
        dim = config.dim
        self.properties = FeedForward(dim, 2 * dim, _N_BANDS + 4)
        # A batch norm, and not a layer norm, at the projector's end: it lets a regulariser see
        # the spread of the embeddings over images (LeJEPA, arXiv:2511.08544).
        self.projector = nn.Sequential(
            nn.Linear(dim, 2 * dim), nn.GELU(), nn.Linear(2 * dim, config.embedding_dim)
        )
        self.projector_norm = nn.BatchNorm1d(config.embedding_dim, affine=False)
        # The embedding also hears what the heads say: of the slot's vector colours are but a small part.
        self.property_projector = FeedForward(_N_BANDS + 2, config.embedding_dim, config.embedding_dim)
        nn.init.zeros_(self.property_projector[-1].weight)
        nn.init.zeros_(self.property_projector[-1].bias)

    def forward(self, slots):
        """Read the slots (B, N, dim) out."""
        properties = self.properties(slots).float()
        flux_asinh, star_logit = properties[..., :_N_BANDS], properties[..., _N_BANDS + 3]
        log_radius = properties[..., _N_BANDS].clamp(-4, 3)
        told = torch.cat(
            [flux_asinh.clamp(*_FLUX_RANGE) / 3, log_radius[..., None], star_logit[..., None] / 4], dim=-1
        )
        return {
            "flux_asinh": flux_asinh,
            "log_radius": log_radius,
            "ellipticity": torch.tanh(properties[..., _N_BANDS + 1 : _N_BANDS + 3]),
            "star_logit": star_logit,
            # Detached: embeddings are made of what the heads say, and do not change it.
            "projection": self.projector(slots).float() + self.property_projector(told.detach()).float(),
        }

    def normalize(self, outputs):
        """
        Batch-normalise the projections of several views together, in place.

        In training the statistics are those of the active slots of all views at once, so that a view
        cannot differ from another by its mean.
        """
        if not self.training:
            for output in outputs:
                shape = output["projection"].shape
                output["projection"] = self.projector_norm(output["projection"].flatten(0, 1)).view(shape)
            return
        active = [(output["activity_logit"] > 0) & output["valid"] for output in outputs]
        chosen = torch.cat([output["projection"][mask] for output, mask in zip(outputs, active, strict=True)])
        normed = self.projector_norm(chosen) if len(chosen) > 1 else chosen
        for output, mask, values in zip(
            outputs, active, normed.split([int(mask.sum()) for mask in active]), strict=True
        ):
            projection = torch.zeros_like(output["projection"])
            projection[mask] = values
            output["projection"] = projection

    @contextmanager
    def gather_statistics(self):
        """
        Within it, `normalize` takes the statistics anew: means over all its calls.

        For averaged weights, whose projections are not those that the statistics were gathered from; what
        `torch.optim.swa_utils.update_bn` does for models with a plain forward pass.
        """
        norm, training, momentum = self.projector_norm, self.training, self.projector_norm.momentum
        norm.reset_running_stats()
        norm.momentum = None
        self.train()
        try:
            yield
        finally:
            norm.momentum = momentum
            self.train(training)


class Predictor(nn.Module):
    """
    Predict one survey's embedding of an object from the other's, given their context.

    The context holds the difference of position and its error, in 0.1 arcsec pixels.
    """

    def __init__(self, config):
        super().__init__()
        self.net = FeedForward(config.embedding_dim + 4, 4 * config.embedding_dim, config.embedding_dim)

    def forward(self, embedding, context):
        """Predict embeddings (K, d) from ``embedding`` (K, d) and ``context`` (K, 4)."""
        return embedding + self.net(torch.cat([embedding, context], dim=-1))


class SlotModel(PretrainedMixin, nn.Module):
    """
    What all models with object slots share: views, units, and the way to a catalogue.

    Subclasses have ``features(inputs)``, which makes the features of a batch, ``decoder(features, window)``
    and ``heads``, a `SlotHeads`. ``has_attention`` says that the decoder can tell where its slots looked.
    """

    has_attention = False

    def __init__(self):
        super().__init__()
        self.register_buffer("flux_units", flux_units(), persistent=False)

    def prepare(self, tiles):
        """Network inputs of a batch of tiles, for `encode`; they are the same for all views."""
        check_tiles(tiles, multiple=max(8, self.config.patch_size // 2))
        return network_inputs(tiles)

    def encode(self, inputs, view="joint"):
        """
        Features of a batch of tiles in one view.

        Parameters
        ----------
        inputs : dict
            From `prepare`.
        view : {"joint", "rubin", "euclid"}
            With ``"rubin"`` the Euclid bands are missing, and the other way round.
        """
        if view != "joint":
            inputs = dict(inputs)
            other = "euclid" if view == "rubin" else "rubin"
            for key in (other, f"{other}_condition"):
                inputs[key] = torch.zeros_like(inputs[key])
        return self.features(inputs)

    def decode(self, features, window=None, **options):
        """
        Outputs of every decoder layer (list of dict); the last one also holds those of the heads.

        ``window`` (B, 4) restricts the queries to ``x0, x1, y0, y1``, in 0.1 arcsec pixels; options are the
        decoder's. The projections are not normalised yet: see `SlotHeads.normalize`.
        """
        layers = self.decoder(features, window, **options)
        layers[-1].update(self.heads(layers[-1]["slots"]))
        return layers

    def proposed(self, features):
        """Pixels of the heat map (B, H, W) that are worth a query, bool."""
        config = self.config
        return worth_a_query(features["heat"], nms_size=config.nms_size, threshold=config.proposal_threshold)

    def to_slots(self, output):
        """Turn the output of the last decoder layer into `~jaisp.models.Slots` in physical units."""
        position, error, shape = output["position"], output["error"], output["ellipticity"]
        return Slots(
            activity_logit=output["activity_logit"],
            x=position[..., 0],
            y=position[..., 1],
            x_err=error[..., 0],
            y_err=error[..., 1],
            flux=torch.sinh(output["flux_asinh"].clamp(*_FLUX_RANGE)) * self.flux_units,
            half_light_radius=output["log_radius"].exp(),
            e1=shape[..., 0],
            e2=shape[..., 1],
            star_logit=output["star_logit"],
            embedding=functional.normalize(output["projection"], dim=-1),
            valid=output["valid"],
            n_proposals=output["n_proposals"],
        )

    def forward(self, tiles, views=VIEWS, window=None):
        """
        Slots of a batch of tiles.

        Parameters
        ----------
        tiles : dict of Tensor
            For each survey ``<survey>_snr`` (B, n_bands, H, W): sky-subtracted flux over its
            source-scale noise, ``_valid`` (bool, same shape), ``_noise`` (B, n_bands) in nJy, 0 for a
            missing band, ``_psf`` (B, n_bands, P, P). Rubin on 0.2 arcsec and Euclid on 0.1 arcsec
            pixels, twice as many; sizes a multiple of 8 Rubin pixels, of 16 with
            patches of 32.
        views : tuple of {"joint", "rubin", "euclid"}
            Which slots to make.
        window : Tensor, shape (B, 4), optional
            Region for the queries.

        Returns
        -------
        dict of `~jaisp.models.Slots`
            One for each view.
        """
        inputs = self.prepare(tiles)
        outputs = {view: self.decode(self.encode(inputs, view), window)[-1] for view in views}
        self.heads.normalize(list(outputs.values()))
        return {view: self.to_slots(output) for view, output in outputs.items()}

    def catalog(self, rubin=None, euclid=None, **options):
        """
        Make the catalogue of a pair of images, or of one survey alone.

        Parameters
        ----------
        rubin, euclid : `~jaisp.image.SurveyImage`, optional
            At least one.
        **options
            See `jaisp.catalog.make_catalog`.

        Returns
        -------
        `~astropy.table.QTable`
            One row for each active object, ranked by activity.
        """
        from jaisp.catalog import make_catalog  # the only arrow from models to catalog

        return make_catalog(self, rubin, euclid, **options)


class DETRJEPA(SlotModel):
    """
    Object-centric joint-embedding model of Rubin and Euclid images (Approach 3, the recommended one).

    A ViT backbone over patches (1.6 arcsec by default), a DETR decoder whose queries become object slots for
    each survey, and a joint-embedding predictive loss between matched slots (see `jaisp.training`).

    Parameters
    ----------
    config : `~jaisp.models.DETRJEPAConfig`, optional
        Sizes; the default is that of the bundled weights.

    Examples
    --------
    >>> from jaisp.models import DETRJEPA, DETRJEPAConfig
    >>> model = DETRJEPA(DETRJEPAConfig.tiny())
    >>> model.config.n_queries
    100
    """

    config_class = DETRJEPAConfig
    bundled_name = "detr_jepa"
    has_attention = True
    calibrated_parts = ("backbone", "decoder")  # what the calibration of activity is of

    def __init__(self, config=None):
        super().__init__()
        self.config = config or DETRJEPAConfig()
        self.backbone = Backbone(self.config)
        self.decoder = Decoder(self.config, self.backbone.fine_channels)
        self.heads = SlotHeads(self.config)
        self.predict_euclid, self.predict_rubin = Predictor(self.config), Predictor(self.config)
        # What training reads off an embedding by a linear map: brightness, colours, size, kind.
        self.readout = nn.Linear(self.config.embedding_dim, _N_BANDS + 2)

    def features(self, inputs):
        """Tokens, fine map and heat map; see `~jaisp.models.backbone.Backbone`."""
        return self.backbone(inputs)


def check_tiles(tiles, *, multiple=8):
    """Raise `~jaisp.exceptions.ImageError` when a batch of tiles lacks a key or has a wrong shape."""
    missing = [key for key in TILE_KEYS if key not in tiles]
    if missing:
        raise ImageError(f"tiles lack {', '.join(missing)}; needed: {', '.join(TILE_KEYS)}")
    for survey in (RUBIN, EUCLID):
        shape = tuple(tiles[f"{survey.name}_snr"].shape)
        if len(shape) != 4 or shape[1] != len(survey.bands):
            raise ImageError(
                f"{survey.name}_snr has shape {shape}; needed: (batch, {len(survey.bands)}, height, width)"
            )
    rubin, euclid = tiles["rubin_snr"].shape[-2:], tiles["euclid_snr"].shape[-2:]
    if (2 * rubin[0], 2 * rubin[1]) != tuple(euclid) or rubin[0] % multiple or rubin[1] % multiple:
        raise ImageError(
            f"tiles of {tuple(rubin)} Rubin and {tuple(euclid)} Euclid pixels; Euclid needs twice the Rubin "
            f"size, which must be a multiple of {multiple}"
        )
