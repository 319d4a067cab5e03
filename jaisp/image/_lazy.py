# Licensed under a 3-clause BSD style license - see LICENSE
"""A mapping whose values are made when first asked for."""

from collections.abc import Mapping

__all__ = ["Lazy"]


class Lazy(Mapping):
    """Mapping from band to a value that is made when first asked for."""

    def __init__(self, bands, make, values=()):
        self._bands, self._make, self._values = tuple(bands), make, dict(values)

    def __getitem__(self, band):
        if band not in self._values:
            if band not in self._bands:
                raise KeyError(band)
            self._values[band] = self._make(band)
        return self._values[band]

    def __contains__(self, band):  # that of Mapping would make the value
        return band in self._bands

    def __iter__(self):
        return iter(self._bands)

    def __len__(self):
        return len(self._bands)

    def __repr__(self):
        return f"<{', '.join(self._bands)}>"
