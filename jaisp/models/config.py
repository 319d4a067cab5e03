# Licensed under a 3-clause BSD style license - see LICENSE
"""Model configurations: frozen dataclasses that round-trip to JSON beside the weights."""

import dataclasses
import json
from dataclasses import dataclass, field
from typing import ClassVar

from jaisp.exceptions import ConfigError, suggest

__all__ = ["DETRJEPAConfig", "ObjectJEPAConfig", "PatchJEPAConfig", "config_from_dict"]


_WORDS = {
    bool: "true or false",
    int: "a whole number",
    float: "a number",
    str: "a text in quotes",
    dict: "a section with keys",
}


def config_from_dict(cls, values):
    """
    Build a configuration dataclass from a mapping; an unknown key or a value of another type is an error.

    Parameters
    ----------
    cls : type
        A dataclass.
    values : mapping
        Field names and values, e.g. from JSON or TOML.
    """
    types = {item.name: item.type for item in dataclasses.fields(cls) if item.init}
    allowed = list(types)
    for key in values:
        if key not in allowed:
            raise ConfigError(
                f"unknown key {key!r} for {cls.__name__}{suggest(key, allowed)}; "
                f"allowed: {', '.join(allowed)}"
            )
        _check_type(key, values[key], types[key])
    values = {key: tuple(value) if isinstance(value, list) else value for key, value in values.items()}
    try:
        return cls(**values)
    except TypeError as error:
        raise ConfigError(f"{cls.__name__}: {error}") from None


def _check_type(key, value, wanted):
    """Refuse a value that is not of a field's type; whole numbers are numbers, but true and false are not."""
    if wanted is tuple:
        if not isinstance(value, (list, tuple)):
            raise ConfigError(f"{key} is {value!r}; give a list: [{value!r}]")
    elif wanted in _WORDS and type(value) is not wanted and not (wanted is float and type(value) is int):
        raise ConfigError(f"{key} is {value!r}; give {_WORDS[wanted]}")


class _Config:
    """What all model configurations can do."""

    @classmethod
    def from_dict(cls, values):
        """Build from a mapping; unknown keys raise `~jaisp.exceptions.ConfigError`."""
        return config_from_dict(cls, values)

    def to_dict(self):
        """Return a plain dictionary that JSON can hold."""
        return json.loads(json.dumps(dataclasses.asdict(self)))


@dataclass(frozen=True)
class DETRJEPAConfig(_Config):
    """
    Size and behaviour of `~jaisp.models.DETRJEPA`.

    Parameters
    ----------
    channels : tuple of int
        Feature channels of the maps at 0.2", 0.4" and 0.8".
    dim : int
        Width of the tokens and of the slots; a multiple of 32.
    n_backbone_layers, n_decoder_layers : int
        Transformer layers over tokens, and over slots.
    n_queries : int
        Slots for each survey and tile.
    embedding_dim : int
        Length of the slot embedding.
    patch_size : {8, 16, 32}
        Side of the backbone's patches in 0.1" pixels.
    window : int
        Side, in 0.2" pixels, of the window of fine features that a slot gathers.
    nms_size : int
        Side, in 0.1" pixels, of the window in which a proposal must be the highest.
    proposal_threshold : float
        Heat-map probability below which a peak is not worth a query.
    calibration : dict
        Coefficients that turn logits and significances into calibrated probabilities
        (see `jaisp.catalog`); measured on skies apart from training and test.
    """

    channels: tuple = (32, 64, 96)
    dim: int = 160
    n_backbone_layers: int = 4
    n_decoder_layers: int = 2
    n_queries: int = 100
    embedding_dim: int = 64
    patch_size: int = 16
    window: int = 5
    nms_size: int = 3
    proposal_threshold: float = 0.02
    calibration: dict = field(default_factory=dict)

    def __post_init__(self):
        if len(self.channels) != 3 or min(self.channels) < 1:
            raise ConfigError(f"channels must be three positive integers, not {self.channels!r}")
        if self.dim % 32:
            raise ConfigError(f"dim must be a multiple of 32, not {self.dim}")
        for name in ("n_decoder_layers", "n_queries", "embedding_dim"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} must be at least 1, not {getattr(self, name)}")
        for name in ("window", "nms_size"):
            if getattr(self, name) % 2 != 1:
                raise ConfigError(f"{name} must be odd, not {getattr(self, name)}")
        if self.patch_size not in (8, 16, 32):
            raise ConfigError(f"patch_size must be 8, 16 or 32, not {self.patch_size}")

    @classmethod
    def tiny(cls):
        """Return the smallest useful configuration, for tests."""
        return cls(channels=(8, 8, 8), dim=32, n_backbone_layers=1, n_decoder_layers=1)


@dataclass(frozen=True)
class ObjectJEPAConfig(_Config):
    """
    Size and behaviour of `~jaisp.models.ObjectJEPA`.

    Parameters
    ----------
    channels : tuple of int
        Feature channels of the probability map's network at 0.2", 0.4" and 0.8".
    dim : int
        Channels of that network at 1.6", and width of an object's vector; a multiple of 32.
    cutout_channels : tuple of int
        Feature channels of the cut-outs at 0.2", 0.4" and 0.8".
    n_queries : int
        Most objects of a tile.
    embedding_dim : int
        Length of an object's embedding.
    match_radius : float
        Objects of the two surveys within this many arcsec are taken for the same one in training.
    nms_size : int
        Side, in 0.1" pixels, of the window in which a peak must be the highest.
    proposal_threshold : float
        Probability below which a peak is not cut out.
    calibration : dict
        As in `~jaisp.models.DETRJEPAConfig`.
    """

    n_backbone_layers: ClassVar[int] = 0  # the backbone without its transformer is a plain CNN
    patch_size: ClassVar[int] = 16

    channels: tuple = (16, 32, 48)
    dim: int = 64
    cutout_channels: tuple = (24, 32, 48)
    n_queries: int = 100
    embedding_dim: int = 64
    match_radius: float = 0.5
    nms_size: int = 5
    proposal_threshold: float = 0.05
    calibration: dict = field(default_factory=dict)

    def __post_init__(self):
        for name in ("channels", "cutout_channels"):
            value = getattr(self, name)
            if len(value) != 3 or min(value) < 1:
                raise ConfigError(f"{name} must be three positive integers, not {value!r}")
        if self.dim % 32:
            raise ConfigError(f"dim must be a multiple of 32, not {self.dim}")
        for name in ("n_queries", "embedding_dim"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} must be at least 1, not {getattr(self, name)}")
        if self.nms_size % 2 != 1:
            raise ConfigError(f"nms_size must be odd, not {self.nms_size}")
        if self.match_radius <= 0:
            raise ConfigError(f"match_radius must be positive, not {self.match_radius}")

    @classmethod
    def tiny(cls):
        """Return the smallest useful configuration, for tests."""
        return cls(channels=(8, 8, 8), dim=32, cutout_channels=(8, 8, 8))


@dataclass(frozen=True)
class PatchJEPAConfig(_Config):
    """
    Size of `~jaisp.models.PatchJEPA`.

    Parameters
    ----------
    dim : int
        Width of the tokens (patches of 1.6"); a multiple of 32.
    n_layers : int
        Transformer layers.
    embedding_dim : int
        Length of a tile's embedding.
    tile_size : int
        Side of the tiles that images are cut into, in 0.1" pixels; a multiple of 16.
    """

    dim: int = 64
    n_layers: int = 4
    embedding_dim: int = 64
    tile_size: int = 256

    def __post_init__(self):
        if self.dim % 32:
            raise ConfigError(f"dim must be a multiple of 32, not {self.dim}")
        for name in ("n_layers", "embedding_dim"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} must be at least 1, not {getattr(self, name)}")
        if self.tile_size < 64 or self.tile_size % 16:
            raise ConfigError(f"tile_size must be a multiple of 16 and at least 64, not {self.tile_size}")

    @classmethod
    def tiny(cls):
        """Return the smallest useful configuration, for tests."""
        return cls(dim=32, n_layers=1, tile_size=64)
