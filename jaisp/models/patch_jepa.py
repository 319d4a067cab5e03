# Licensed under a 3-clause BSD style license - see LICENSE
"""PatchJEPA: one vector for a whole tile of each survey."""

from itertools import islice

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from jaisp.exceptions import ConfigError, ImageError
from jaisp.models.backbone import token_positions
from jaisp.models.config import PatchJEPAConfig
from jaisp.models.detrjepa import check_tiles
from jaisp.models.inputs import N_CONDITIONS, network_inputs
from jaisp.models.layers import FeedForward, LayerNorm, TransformerLayer, rotary_table
from jaisp.models.pretrained import PretrainedMixin
from jaisp.surveys import EUCLID, RUBIN

__all__ = ["PatchJEPA"]

_SHORTEST = 3.2  # arcsec: the finest relative position that tokens tell apart by rotation


class PatchJEPA(PretrainedMixin, nn.Module):
    """
    Approach 1: a ViT over the whole tile, and one vector for each tile and survey.

    A contrastive loss (see `jaisp.training`) draws the vectors of the two surveys' images of the same sky
    together and those of different skies apart. It ships as the baseline of the comparison: a tile's vector
    says what its brightest objects and its noise are like, nothing of the single object, and it gives no
    catalogue.

    Parameters
    ----------
    config : `~jaisp.models.PatchJEPAConfig`, optional
        Sizes; the default is that of the bundled weights.

    Examples
    --------
    >>> from jaisp.models import PatchJEPA, PatchJEPAConfig
    >>> model = PatchJEPA(PatchJEPAConfig.tiny())
    >>> model.config.embedding_dim
    64
    """

    config_class = PatchJEPAConfig
    bundled_name = "patch_jepa"

    def __init__(self, config=None):
        super().__init__()
        self.config = config or PatchJEPAConfig()
        dim = self.config.dim
        self.patches = nn.ModuleDict(
            {
                survey.name: nn.Conv2d(2 * len(survey.bands), dim, size, stride=size)
                for survey, size in ((RUBIN, 8), (EUCLID, 16))
            }
        )
        self.condition = nn.Linear(N_CONDITIONS, dim)
        self.layers = nn.ModuleList([TransformerLayer(dim) for _ in range(self.config.n_layers)])
        self.norm = LayerNorm(dim)
        self.projector = FeedForward(dim, 2 * dim, self.config.embedding_dim)

    def prepare(self, tiles):
        """Network inputs of a batch of tiles, for `encode`."""
        check_tiles(tiles)
        return network_inputs(tiles)

    def encode(self, inputs, survey):
        """
        Vectors (B, d) of one survey's images, not normalised.

        Parameters
        ----------
        inputs : dict
            From `prepare`.
        survey : {"rubin", "euclid"}
        """
        n_bands = inputs[survey].shape[1] // 3
        # Plain S/N and validity: a ViT sees the pixels as they are.
        images = torch.cat([inputs[survey][:, :n_bands], inputs[survey][:, 2 * n_bands :]], dim=1)
        tokens = self.patches[survey](images)
        batch, _, rows, columns = tokens.shape
        conditions = [
            value if name == survey else torch.zeros_like(value)
            for name in ("rubin", "euclid")
            for value in (inputs[f"{name}_condition"],)
        ]
        tokens = tokens.flatten(2).transpose(1, 2) + self.condition(torch.cat(conditions, dim=1))[:, None]
        table = rotary_table(token_positions(batch, rows, columns, tokens.device), 32, _SHORTEST)
        for layer in self.layers:
            tokens = layer(tokens, table)
        return self.projector(self.norm(tokens).mean(1)).float()

    def forward(self, tiles):
        """
        Embeddings of a batch of tiles.

        Parameters
        ----------
        tiles : dict of Tensor
            As for `~jaisp.models.DETRJEPA`.

        Returns
        -------
        dict of Tensor
            For ``"rubin"`` and ``"euclid"``, unit vectors (B, d).
        """
        inputs = self.prepare(tiles)
        return {
            survey.name: functional.normalize(self.encode(inputs, survey.name), dim=-1)
            for survey in (RUBIN, EUCLID)
        }

    def embed(self, rubin=None, euclid=None, *, region="union", batch_size=4, progress=None):
        """
        Embeddings of the tiles of a pair of images, or of one survey alone.

        Parameters
        ----------
        rubin, euclid : `~jaisp.image.SurveyImage`, optional
            At least one.
        region : {"union", "euclid", "overlap"}
            Sky to cover; see `~jaisp.io.align`.
        batch_size : int
            Tiles at a time.
        progress : callable, optional
            Called as ``progress(done, total)`` with tiles.

        Returns
        -------
        `~astropy.table.QTable`
            One row for each tile of ``config.tile_size`` pixels: ``tile``, ``sky_centroid`` (its middle),
            for each survey ``<survey>_embedding`` (unit vectors) and ``<survey>_coverage`` (share of the
            tile with a valid pixel in any band), and ``similarity``, the cosine of the two. What a tile
            lacks is NaN.
        """
        from astropy.table import QTable

        from jaisp.io import align

        if rubin is None and euclid is None:
            raise ImageError("no image given; give rubin, euclid or both")
        size = self.config.tile_size
        pair = align(rubin, euclid, region=region)
        total = sum(1 for _ in pair.tiles(size=size, halo=0))
        tiles, done = pair.tiles(size=size, halo=0), 0
        device = next(self.parameters()).device
        columns = {name: [] for name in ("tile", "x", "y")}
        columns |= {f"{s.name}_{what}": [] for what in ("embedding", "coverage") for s in (RUBIN, EUCLID)}
        with torch.inference_mode():
            while batch := list(islice(tiles, batch_size)):
                arrays = [tile.arrays for tile in batch]
                tensors = {
                    key: torch.from_numpy(np.stack([a[key] for a in arrays])).to(device) for key in arrays[0]
                }
                columns["tile"] += [tile.index for tile in batch]
                columns["x"] += [tile.x0 + (size - 1) / 2 for tile in batch]
                columns["y"] += [tile.y0 + (size - 1) / 2 for tile in batch]
                for name, vectors in self(tensors).items():
                    columns[f"{name}_embedding"] += list(vectors.cpu().numpy())
                    valid = tensors[f"{name}_valid"].any(1).float().mean((1, 2))
                    columns[f"{name}_coverage"] += valid.tolist()
                if progress is not None:
                    done += len(batch)
                    progress(done, total)
        x, y = columns.pop("x"), columns.pop("y")
        table = QTable({name: np.array(values) for name, values in columns.items()})
        table.add_column(pair.wcs.pixel_to_world(x, y).icrs, name="sky_centroid", index=1)
        for name in ("rubin", "euclid"):
            table[f"{name}_embedding"][table[f"{name}_coverage"] == 0] = np.nan
        table["similarity"] = (table["rubin_embedding"] * table["euclid_embedding"]).sum(axis=1)
        return table

    def catalog(self, rubin=None, euclid=None, **options):
        """Raise `~jaisp.exceptions.ConfigError`: a vector a tile holds no objects."""
        raise ConfigError(
            "PatchJEPA makes no catalogue: it has one vector for a whole tile and knows no objects; "
            "use DETRJEPA or ObjectJEPA, or PatchJEPA.embed(rubin, euclid) for the tiles' vectors"
        )
