# Licensed under a 3-clause BSD style license - see LICENSE
"""Building blocks of the networks."""

import torch

from jaisp.models.layers import Attention, distances, rotary_table


def test_distances_are_exact_for_near_positions_far_from_the_origin():
    """As many as there are slots, where matrix products would lose the near pairs."""
    generator = torch.Generator().manual_seed(4)
    positions = 30 + 0.3 * torch.rand(1, 100, 2, generator=generator)
    exact = torch.cdist(positions.double(), positions.double(), compute_mode="donot_use_mm_for_euclid_dist")
    torch.testing.assert_close(distances(positions, positions).double(), exact, atol=1e-6, rtol=1e-5)
    assert (torch.diagonal(distances(positions, positions), dim1=1, dim2=2) == 0).all()


def test_attention_weights_are_those_of_the_forward_pass():
    """Values mixed by hand with the weights give what the fused kernel gave."""
    generator = torch.Generator().manual_seed(2)
    attention = Attention(64)
    slots, context = torch.randn(2, 5, 64, generator=generator), torch.randn(2, 9, 64, generator=generator)
    tables = [rotary_table(10 * torch.rand(2, n, 2, generator=generator), 32, 1.0) for n in (5, 9)]
    for bias in (None, torch.randn(2, 2, 5, 9, generator=generator)):
        weights = attention.weights(slots, context, *tables, bias)
        assert weights.shape == (2, 2, 5, 9)
        torch.testing.assert_close(weights.sum(-1), torch.ones(2, 2, 5))
        values = attention.key_value(context)[..., 64:].view(2, 9, 2, 32)
        mixed = torch.einsum("bhnm,bmhc->bnhc", weights, values).flatten(2)
        torch.testing.assert_close(attention.out(mixed), attention(slots, context, *tables, bias))
