# Licensed under a 3-clause BSD style license - see LICENSE
"""Building blocks of the networks."""

import torch

from jaisp.models.layers import distances


def test_distances_are_exact_for_near_positions_far_from_the_origin():
    """As many as there are slots, where matrix products would lose the near pairs."""
    generator = torch.Generator().manual_seed(4)
    positions = 30 + 0.3 * torch.rand(1, 100, 2, generator=generator)
    exact = torch.cdist(positions.double(), positions.double(), compute_mode="donot_use_mm_for_euclid_dist")
    torch.testing.assert_close(distances(positions, positions).double(), exact, atol=1e-6, rtol=1e-5)
    assert (torch.diagonal(distances(positions, positions), dim1=1, dim2=2) == 0).all()
