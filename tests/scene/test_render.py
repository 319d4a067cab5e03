# Licensed under a 3-clause BSD style license - see LICENSE
import numpy as np
import pytest
import torch

from jaisp.exceptions import ImageError
from jaisp.scene import psf_transform, render_derivatives, render_image, render_stamps, stamp_size

galsim = pytest.importorskip("galsim")

PSFS = {
    "seeing": (galsim.Moffat(beta=3.0, fwhm=0.8, trunc=5.0), 0.2, 51),
    "sheared seeing": (galsim.Kolmogorov(fwhm=0.7).shear(g1=0.06, g2=-0.04), 0.2, 51),
    "near infrared": (galsim.Moffat(beta=2.5, fwhm=0.5, trunc=3.0).shear(g1=-0.03, g2=0.02), 0.1, 61),
    "visible": (galsim.Gaussian(fwhm=0.14).shear(g1=0.03, g2=0.02), 0.1, 21),
}
INDEX = {"bulge in Sersic 0.6": 0.6, "bulge in Sersic 2.2": 2.2}


def _psf_image(profile, scale, width):
    image = profile.drawImage(nx=width, ny=width, scale=scale, dtype=np.float64).array
    return torch.as_tensor(image / image.sum())


def _galaxy(kind, radius, e1, e2):
    if kind == "star":
        return None
    if kind == "exponential":
        profile = galsim.Exponential(half_light_radius=radius)
    elif kind == "de Vaucouleurs":
        profile = galsim.DeVaucouleurs(half_light_radius=radius)
    else:
        profile = 0.7 * galsim.Sersic(n=INDEX.get(kind, 1.0), half_light_radius=radius)
        profile += 0.3 * galsim.DeVaucouleurs(half_light_radius=0.5 * radius)
    return profile.shear(g1=e1, g2=e2)


@pytest.mark.parametrize("psf", PSFS)
@pytest.mark.parametrize(
    ("kind", "radius", "e1", "e2"),
    [
        ("star", 0.0, 0.0, 0.0),
        ("exponential", 0.15, 0.0, 0.0),
        ("exponential", 0.4, 0.35, -0.2),
        ("exponential", 0.8, -0.1, 0.4),
        ("de Vaucouleurs", 0.2, 0.1, 0.15),
        ("bulge in disc", 0.6, 0.3, 0.1),
        ("bulge in Sersic 0.6", 0.5, 0.2, 0.1),
        ("bulge in Sersic 2.2", 0.3, -0.2, 0.1),
    ],
)
def test_against_galsim(psf, kind, radius, e1, e2):
    profile, scale, width = PSFS[psf]
    x, y = 0.37, -0.21
    size = 128
    galaxy = _galaxy(kind, radius, e1, e2)
    scene = profile if galaxy is None else galsim.Convolve(profile, galaxy)
    expected = (
        scene.shift(x * scale, y * scale)
        .drawImage(nx=size + 1, ny=size + 1, scale=scale, dtype=np.float64)
        .array[:-1, :-1]
    )
    stamp = render_stamps(
        psf_transform(_psf_image(profile, scale, width)[None], size, dealias=True),
        *(torch.tensor([value], dtype=torch.float64) for value in (x, y, radius, e1, e2)),
        size=size,
        pixel_scale=scale,
        bulge_fraction=1.0 if kind == "de Vaucouleurs" else 0.3 if "bulge" in kind else 0.0,
        bulge_size=0.5 if "bulge" in kind else 1.0,
        sersic_index=INDEX.get(kind, 1.0),
    )[0, 0].numpy()
    # The wings of the analytic PSF beyond its image are no fault of the renderer.
    inner = slice(size // 2 - width // 2, size // 2 + width // 2 + 1)
    difference = (stamp - expected)[inner, inner]
    assert abs(difference.sum()) < 0.005
    assert np.abs(difference).max() < 0.005
    assert np.sqrt((difference**2).sum() / (expected**2).sum()) < 0.005
    # The flux that a matched filter would measure.
    assert (stamp * expected).sum() / (stamp**2).sum() == pytest.approx(1, abs=0.005)


def _parameters(rng, n, dtype=torch.float64):
    values = (
        rng.uniform(-0.5, 0.5, n),
        rng.uniform(-0.5, 0.5, n),
        rng.uniform(0.1, 0.6, n),
        rng.uniform(-0.4, 0.4, n),
        rng.uniform(-0.4, 0.4, n),
    )
    return [torch.as_tensor(value, dtype=dtype) for value in values]


def test_stamps_add_up_to_one_in_every_band_and_precision():
    rng = np.random.default_rng(5)
    psf = torch.stack([_psf_image(PSFS[name][0], 0.1, 31) for name in ("seeing", "visible")])
    for dtype in (torch.float32, torch.float64):
        stamps = render_stamps(psf.to(dtype), *_parameters(rng, 7, dtype), size=48, pixel_scale=0.1)
        assert stamps.shape == (7, 2, 48, 48)
        assert stamps.dtype == dtype
        torch.testing.assert_close(stamps.sum((-1, -2)), torch.ones(7, 2, dtype=dtype), atol=1e-4, rtol=0)


def test_a_psf_for_each_source_and_a_ready_transform():
    rng = np.random.default_rng(6)
    psf = torch.stack([_psf_image(PSFS[name][0], 0.1, 31) for name in ("seeing", "visible")])
    parameters = _parameters(rng, 3)
    expected = render_stamps(psf, *parameters, size=33, pixel_scale=0.1)
    each = render_stamps(psf.expand(3, 2, 31, 31), *parameters, size=33, pixel_scale=0.1)
    ready = render_stamps(psf_transform(psf, 33), *parameters, size=33, pixel_scale=0.1)
    torch.testing.assert_close(each, expected)
    torch.testing.assert_close(ready, expected)


@pytest.mark.parametrize(
    ("profile", "rms"),
    [
        (galsim.Moffat(beta=3.0, fwhm=0.14), 0.015),
        (
            galsim.Convolve(galsim.Airy(lam_over_diam=0.105, obscuration=0.29), galsim.Gaussian(fwhm=0.08)),
            0.05,
        ),
    ],
)
def test_undersampled_psf(profile, rms):
    psf = _psf_image(profile, 0.1, 31)[None]
    x, y = (torch.tensor([value], dtype=torch.float64) for value in (0.5, 0.4))
    zero = torch.zeros(1, dtype=torch.float64)
    expected = profile.shift(0.05, 0.04).drawImage(nx=33, ny=33, scale=0.1, dtype=float).array[:-1, :-1]
    error = {}
    for dealias in (False, True):
        transform = psf_transform(psf, 32, dealias=dealias)
        stamp = render_stamps(transform, x, y, zero, zero, zero, size=32, pixel_scale=0.1)[0, 0].numpy()
        error[dealias] = np.sqrt(((stamp - expected) ** 2).sum() / (expected**2).sum())
    assert error[True] < rms
    assert error[True] < 0.2 * error[False]


def test_well_sampled_psf_has_no_aliases():
    psf = _psf_image(PSFS["seeing"][0], 0.2, 51)[None]
    assert len(psf_transform(psf, 64, dealias=True).aliases) == 1


def test_only_undersampled_bands_have_aliases():
    psf = torch.stack([_psf_image(PSFS[name][0], 0.1, 31) for name in ("near infrared", "visible")])
    parameters = _parameters(np.random.default_rng(9), 3)
    transform = psf_transform(psf, 48, dealias=True)
    assert [None if bands is None else bands.tolist() for _, _, bands, _ in transform.aliases] == [
        None,
        [1],
        [1],
        [1],
    ]
    both = render_stamps(transform, *parameters, size=48, pixel_scale=0.1)
    alone = render_stamps(psf_transform(psf[1:], 48, dealias=True), *parameters, size=48, pixel_scale=0.1)
    plain = render_stamps(psf[:1], *parameters, size=48, pixel_scale=0.1)
    torch.testing.assert_close(both[:, 1:], alone)
    torch.testing.assert_close(both[:, :1], plain, atol=2e-5, rtol=0)


def test_an_alias_that_holds_next_to_nothing_is_left_where_it_is_folded():
    profile = galsim.Gaussian(fwhm=0.22)
    psf = _psf_image(profile, 0.1, 31)[None]
    transform = psf_transform(psf, 32, dealias=True)
    assert [alias[:2] for alias in transform.aliases] == [(False, False), (False, True), (True, False)]
    zero, half = torch.zeros(1, dtype=torch.float64), torch.full((1,), 0.5, dtype=torch.float64)
    stamp = render_stamps(transform, zero, zero, zero, zero, zero, size=32, pixel_scale=0.1)[0, 0]
    torch.testing.assert_close(stamp[1:, 1:], psf[0], atol=1e-7, rtol=0)
    stamp = render_stamps(transform, half, half, zero, zero, zero, size=32, pixel_scale=0.1)[0, 0].numpy()
    expected = profile.shift(0.05, 0.05).drawImage(nx=33, ny=33, scale=0.1, dtype=float).array[:-1, :-1]
    assert np.abs(stamp - expected).max() < 1e-3 * expected.max()


def test_point_source_on_the_pixel_centre_is_the_psf():
    psf = _psf_image(PSFS["visible"][0], 0.1, 21)
    zero = torch.zeros(1, dtype=torch.float64)
    stamp = render_stamps(psf[None], zero, zero, zero, zero, zero, size=32, pixel_scale=0.1)[0, 0]
    torch.testing.assert_close(stamp[6:27, 6:27], psf)


def test_large_psf_is_cut():
    psf = torch.rand(1, 61, 61, dtype=torch.float64)
    zero = torch.zeros(1, dtype=torch.float64)
    stamp = render_stamps(psf, zero, zero, zero, zero, zero, size=32, pixel_scale=0.1)[0, 0]
    torch.testing.assert_close(stamp[1:, 1:], psf[0, 15:46, 15:46])


@pytest.mark.parametrize("shape", [(1, 20, 20), (1, 21, 19), (21, 21)])
def test_psf_must_be_odd_and_square(shape):
    with pytest.raises(ImageError, match="odd k"):
        psf_transform(torch.ones(shape), 32)


def test_gradients():
    rng = np.random.default_rng(7)
    psf = _psf_image(galsim.Gaussian(fwhm=0.5), 0.2, 9)[None].requires_grad_()
    inputs = [value.requires_grad_() for value in _parameters(rng, 2)]
    bulge = torch.tensor([0.3, 0.0], dtype=torch.float64, requires_grad=True)

    def render(psf, x, y, radius, e1, e2, bulge):
        return render_stamps(psf, x, y, radius, e1, e2, size=12, pixel_scale=0.2, bulge_fraction=bulge)

    assert torch.autograd.gradcheck(render, (psf, *inputs, bulge))


@pytest.mark.parametrize("size", [32, 33])
@pytest.mark.parametrize(("bulge_fraction", "bulge_size"), [(0.0, 1.0), (0.4, 1.0), (0.4, 0.5)])
@pytest.mark.parametrize("fwhm", [0.6, 0.3])
def test_analytic_derivatives_equal_automatic_ones(size, bulge_fraction, bulge_size, fwhm):
    rng = np.random.default_rng(8)
    psf = psf_transform(_psf_image(galsim.Gaussian(fwhm=fwhm), 0.2, 21)[None], size, dealias=True)
    assert len(psf.aliases) == (1 if fwhm > 0.5 else 4)
    x, y, radius, e1, e2 = _parameters(rng, 2)
    bulge = torch.full_like(x, bulge_fraction)
    options = {"size": size, "pixel_scale": 0.2, "bulge_size": bulge_size}
    stamps = render_derivatives(psf, x, y, radius, e1, e2, bulge_fraction=bulge, **options)

    def render(x, y, log_radius, e1, e2, bulge):
        return render_stamps(psf, x, y, log_radius.exp(), e1, e2, bulge_fraction=bulge, **options)

    point = (x, y, radius.log(), e1, e2, bulge)
    torch.testing.assert_close(stamps[:, :, 0], render(*point))
    for index in range(6):
        tangent = tuple(
            torch.ones_like(v) if i == index else torch.zeros_like(v) for i, v in enumerate(point)
        )
        _, expected = torch.autograd.functional.jvp(render, point, tangent)
        torch.testing.assert_close(stamps[:, :, 1 + index], expected, atol=2e-6, rtol=1e-6)
    fewer = render_derivatives(psf, x, y, radius, e1, e2, bulge_fraction=bulge, parameters=2, **options)
    torch.testing.assert_close(fewer, stamps[:, :, :3])


def test_derivative_by_the_sersic_index():
    rng = np.random.default_rng(9)
    psf = psf_transform(_psf_image(galsim.Gaussian(fwhm=0.3), 0.2, 21)[None], 32, dealias=True)
    place, bulge = _parameters(rng, 3), torch.tensor([0.0, 0.3, 1.0], dtype=torch.float64)
    index = torch.tensor([0.7, 1.0, 2.4], dtype=torch.float64)
    options = {"size": 32, "pixel_scale": 0.2, "bulge_fraction": bulge, "bulge_size": 0.5}
    stamps = render_derivatives(psf, *place, sersic_index=index, parameters=7, **options)
    torch.testing.assert_close(
        stamps[:, :, :7], render_derivatives(psf, *place, sersic_index=index, **options), atol=3e-5, rtol=0
    )
    more, less = (
        render_stamps(psf, *place, sersic_index=index * np.exp(step), **options) for step in (1e-3, -1e-3)
    )
    torch.testing.assert_close(stamps[:, :, 7], (more - less) / 2e-3, atol=1e-6, rtol=1e-3)
    assert stamps[2, :, 7].abs().max() == 0


def test_a_source_is_drawn_alike_whatever_its_company():
    psf = _psf_image(galsim.Gaussian(fwhm=0.5), 0.2, 9)[None]
    place = _parameters(np.random.default_rng(10), 2)
    mixed = render_stamps(psf, *place, size=32, pixel_scale=0.2, sersic_index=torch.tensor([1.0, 2.0]))
    alone = render_stamps(psf, *(value[:1] for value in place), size=32, pixel_scale=0.2)
    torch.testing.assert_close(mixed[:1], alone)
    assert (
        render_derivatives(
            psf, *(value[:0] for value in place), size=32, pixel_scale=0.2, parameters=7
        ).numel()
        == 0
    )


def test_image_of_a_scene():
    psf = torch.stack([_psf_image(galsim.Gaussian(fwhm=0.6), 0.2, 21)] * 2)
    x = torch.tensor([30.3, 0.2, -200.0], dtype=torch.float64)
    y = torch.tensor([20.6, 15.0, 10.0], dtype=torch.float64)
    flux = torch.tensor([[10.0, 20.0], [4.0, 8.0], [1.0, 1.0]], dtype=torch.float64, requires_grad=True)
    zero = torch.zeros(3, dtype=torch.float64)
    image = render_image(psf, x, y, flux, zero, zero, zero, shape=(40, 60), pixel_scale=0.2, size=32)
    assert image.shape == (2, 40, 60)
    # The second source is cut by the edge at 0.2 + 0.5 pixels from its centre.
    lit = image[:, :, 15:].sum((1, 2))
    torch.testing.assert_close(lit, torch.tensor([10.0, 20.0], dtype=torch.float64), rtol=1e-3, atol=0)
    columns = torch.arange(60, dtype=torch.float64)
    centroid = (image[0, :, 15:].sum(0) * columns[15:]).sum() / lit[0]
    assert centroid.item() == pytest.approx(30.3, abs=0.01)
    image.sum().backward()
    assert flux.grad[2].abs().max() == 0


def test_stamp_sizes_hold_the_light():
    radius = torch.tensor([0.0, 0.3, 1.0, 3.0])
    size = stamp_size(radius, 0 * radius, 0 * radius, psf_fwhm=0.8, pixel_scale=0.2)
    assert size.tolist() == sorted(size.tolist())
    assert size[-1] == 128
    for index in (1, 2):
        profile = galsim.Convolve(
            galsim.Moffat(beta=3, fwhm=0.8), galsim.Exponential(half_light_radius=float(radius[index]))
        )
        image = profile.drawImage(nx=int(size[index]), ny=int(size[index]), scale=0.2)
        assert image.array.sum() > 0.99
