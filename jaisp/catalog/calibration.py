# Licensed under a 3-clause BSD style license - see LICENSE
"""From the network's logit and the likelihood's errors to a probability that means what it says."""

from dataclasses import asdict, dataclass

import numpy as np
from scipy.optimize import minimize
from scipy.special import expit, log_expit

__all__ = ["ActivityCalibration"]

_MOST_SNR = 100.0  # beyond, more signal says nothing more about being real
# arcsec: nor do errors of positions below. Larger ones tell the blends and faint sources of which a part
# is elsewhere than it seems.
_SHARPEST, _TYPICAL = 0.03, 0.1


@dataclass(frozen=True)
class ActivityCalibration:
    """
    Logistic model of the probability that a slot holds a real source, and that it is there.

    ``activity = sigmoid(intercept + logit_slope * logit + snr_slope * log(1 + snr) - error_slope *
    log(position_err / 0.1 arcsec))``; the identity by default. The significance makes activity rank like
    signal to noise on skies whose sources or noise the network has not met.

    Parameters
    ----------
    intercept, logit_slope, snr_slope, error_slope : float
    """

    intercept: float = 0.0
    logit_slope: float = 1.0
    snr_slope: float = 0.0
    error_slope: float = 0.0

    def __call__(self, logit, snr, position_err=_TYPICAL):
        """
        Return probabilities.

        Parameters
        ----------
        logit, snr, position_err : array, shape (n,)
            Of the network; measured joint S/N; 1 sigma of the position per axis, 0.1 arcsec by default.
        """
        return expit(self._score(*(np.asarray(values, float) for values in (logit, snr, position_err))))

    def _score(self, logit, snr, position_err):
        return (
            self.intercept
            + self.logit_slope * logit
            + self.snr_slope * np.log1p(np.clip(snr, 0, _MOST_SNR))
            - self.error_slope * np.log(np.maximum(position_err, _SHARPEST) / _TYPICAL)
        )

    @classmethod
    def fit(cls, logit, snr, position_err, is_real):
        """
        Maximum-likelihood coefficients, none of the slopes negative.

        Parameters
        ----------
        logit, snr, position_err : array, shape (n,)
            As for a call.
        is_real : array of bool, shape (n,)
        """
        seen = [np.asarray(values, float) for values in (logit, snr, position_err)]
        sign = np.where(np.asarray(is_real, bool), 1.0, -1.0)

        def cost(parameters):
            return -log_expit(sign * cls(*parameters)._score(*seen)).mean()

        bounds = [(-20, 20), (0, 5), (0, 10), (0, 10)]
        found = minimize(cost, (0.0, 1.0, 0.1, 0.1), bounds=bounds, method="L-BFGS-B")
        return cls(*(float(value) for value in found.x))

    def to_dict(self):
        """Return the coefficients as a dictionary, for the weights' configuration."""
        return asdict(self)
