# Licensed under a 3-clause BSD style license - see LICENSE
"""From the network's logit and the likelihood's significance to a probability that means what it says."""

from dataclasses import asdict, dataclass

import numpy as np
from scipy.optimize import minimize
from scipy.special import expit, log_expit

__all__ = ["ActivityCalibration"]


@dataclass(frozen=True)
class ActivityCalibration:
    """
    Logistic model of the probability that a slot holds a real source.

    ``activity = sigmoid(intercept + logit_slope * logit + snr_slope * log(1 + snr))``; the identity
    by default. The significance makes activity rank like signal to noise on skies whose sources or
    noise the network has not met.

    Parameters
    ----------
    intercept, logit_slope, snr_slope : float
    """

    intercept: float = 0.0
    logit_slope: float = 1.0
    snr_slope: float = 0.0

    def __call__(self, logit, snr):
        """Return probabilities for network logits and measured joint S/N, arrays of one shape."""
        return expit(self._score(np.asarray(logit, float), np.asarray(snr, float)))

    def _score(self, logit, snr):
        # Beyond 100 sigma more signal says nothing more about being real.
        return self.intercept + self.logit_slope * logit + self.snr_slope * np.log1p(np.clip(snr, 0, 100))

    @classmethod
    def fit(cls, logit, snr, is_real):
        """
        Maximum-likelihood coefficients, none of the slopes negative.

        Parameters
        ----------
        logit, snr : array, shape (n,)
        is_real : array of bool, shape (n,)
        """
        logit, snr, is_real = np.asarray(logit), np.asarray(snr), np.asarray(is_real, bool)
        sign = np.where(is_real, 1.0, -1.0)

        def cost(parameters):
            return -log_expit(sign * cls(*parameters)._score(logit, snr)).mean()

        bounds = [(-20, 20), (0, 5), (0, 10)]
        found = minimize(cost, (0.0, 1.0, 0.1), bounds=bounds, method="L-BFGS-B")
        return cls(*(float(value) for value in found.x))

    def to_dict(self):
        """Return the coefficients as a dictionary, for the weights' configuration."""
        return asdict(self)
