# Licensed under a 3-clause BSD style license - see LICENSE
"""
Differentiable rendering of PSF-convolved sources, many at a time, in Fourier space.

A source is a point, or a Sersic disc with an optional de Vaucouleurs bulge of the same ellipticity.
Its stamp is the inverse transform of PSF x profile x shift, so that any PSF image and any sub-pixel position
can be used. The PSF image is taken to include the pixel, as images of stars do.
"""

from functools import partial

import scipy.fft
import torch

from jaisp.scene.profiles import galaxy_tables, look_up, mixtures
from jaisp.scene.psf import PSFTransform, psf_transform

__all__ = ["STAMP_SIZES", "render_derivatives", "render_image", "render_stamps", "stamp_size"]

#: Stamp sizes in pixels that are used, so that stamps can be rendered in few batches.
STAMP_SIZES = (24, 32, 48, 64, 96, 128)


_CACHED = 8  # sources


def stamp_size(half_light_radius, e1, e2, *, psf_fwhm, pixel_scale, sizes=STAMP_SIZES):
    """
    Stamp sizes that hold all but 0.5 % of the light of exponential discs and a PSF with ordinary wings.

    Parameters
    ----------
    half_light_radius, e1, e2 : torch.Tensor
        Intrinsic half-light radius in arcsec and ellipticity.
    psf_fwhm, pixel_scale : float
        In arcsec.
    sizes : sequence of int, optional
        Allowed sizes; the largest is used for everything that does not fit.

    Returns
    -------
    size : torch.Tensor of int64
        Size in pixels, one of ``sizes``.
    """
    ellipticity = torch.hypot(e1, e2).clamp(max=0.95)
    stretch = torch.sqrt((1 + ellipticity) / (1 - ellipticity))
    # 4.43 half-light radii hold 99.5 % of an exponential; 2.5 FWHM hold that of a Moffat with beta = 3.
    extent = torch.sqrt((4.43 * half_light_radius * stretch) ** 2 + (2.5 * psf_fwhm) ** 2)
    allowed = torch.tensor(sorted(sizes), dtype=torch.int64)
    index = torch.searchsorted(allowed, (2 * extent / pixel_scale + 2).ceil().to(torch.int64))
    return allowed[index.clamp(max=len(allowed) - 1)]


def _shift(offset, frequency, *, real_at_nyquist):
    """Phase of a shift, (n, len(frequency)); real at the Nyquist frequency where its sign is not defined."""
    angle = -2 * torch.pi * offset[:, None] * frequency
    phase = torch.polar(torch.ones_like(angle), angle)
    if not real_at_nyquist:
        return phase
    nyquist = (frequency.abs() == 0.5).expand_as(angle)
    return torch.where(nyquist, torch.complex(torch.cos(angle), torch.zeros_like(angle)), phase)


def _stretched(half_light_radius, e1, e2, ky, kx, by_shape):
    """Squared sheared frequency in units of the half-light radius; its derivatives by e1 and e2 if asked."""
    kx, ky = torch.broadcast_tensors(kx[None, :], ky[:, None])
    basis = torch.stack([kx**2, 4 * kx * ky, ky**2]).reshape(3, -1)
    area = 1 - e1**2 - e2**2
    scale, zero = (half_light_radius**2)[:, None], torch.zeros_like(e1)
    value = torch.stack([(1 + e1) ** 2 + e2**2, e2, (1 - e1) ** 2 + e2**2], dim=-1) / area[:, None]
    rows = [value]
    if by_shape:
        by_e1 = torch.stack([2 * (1 + e1), zero, -2 * (1 - e1)], dim=-1) + 2 * e1[:, None] * value
        by_e2 = torch.stack([2 * e2, zero + 1, 2 * e2], dim=-1) + 2 * e2[:, None] * value
        rows += [by_e1 / area[:, None], by_e2 / area[:, None]]
    return [((scale * row) @ basis).reshape(-1, *kx.shape) for row in rows]


def _galaxy_terms(profiles, half_light_radius, e1, e2, ky, kx, parameters):
    """Transform of unit sources, then its derivatives by ``parameters`` parameters, (n, terms, ky, kx)."""
    u, *by_shape = _stretched(half_light_radius, e1, e2, ky, kx, parameters > 3)
    slope, (galaxy, *others) = profiles(u)
    terms = [torch.complex(galaxy, torch.zeros_like(galaxy))]
    if parameters:
        step = -2j * torch.pi
        terms += [galaxy * (step * kx)[None, None, :], galaxy * (step * ky)[None, :, None]]
    if parameters > 2:
        terms += [2 * u * slope, *(by * slope for by in by_shape), *others]
    return torch.stack([term.to(terms[0].dtype) for term in terms[: 1 + parameters]], dim=1)


def _inverse(transform, size):
    """Images of half-plane transforms; on a CPU scipy is much faster than torch with many small images."""
    if transform.requires_grad or transform.is_cuda:
        return torch.fft.irfft2(transform, s=(size, size))
    return torch.from_numpy(scipy.fft.irfft2(transform.numpy(), s=(size, size), overwrite_x=True))


def render_stamps(
    psf,
    x,
    y,
    half_light_radius,
    e1,
    e2,
    *,
    size,
    pixel_scale,
    bulge_fraction=0.0,
    bulge_size=1.0,
    sersic_index=1.0,
):
    """
    Stamps of PSF-convolved sources of unit flux.

    Parameters
    ----------
    psf : torch.Tensor, shape (bands, k, k) or (n, bands, k, k), or `PSFTransform`
        PSF images that add up to 1, for all sources or for each; or their `psf_transform` for this ``size``.
    x, y : torch.Tensor, shape (n,)
        Position in pixels from the middle pixel ``size // 2`` of the stamp.
    half_light_radius : torch.Tensor, shape (n,)
        Intrinsic half-light radius in arcsec, of the circle of the same area as the ellipse; 0 for a point.
    e1, e2 : torch.Tensor, shape (n,)
        Ellipticity ``(1 - q) / (1 + q)`` times the cosine and sine of twice the angle from the +x axis.
    size : int
        Width of the stamps in pixels. Light beyond it comes back in on the other side, see `stamp_size`.
    pixel_scale : float
        Arcsec per pixel.
    bulge_fraction : torch.Tensor, shape (n,), or float, optional
        Share of the flux in a de Vaucouleurs profile; the rest is a disc.
    bulge_size : float, optional
        Half-light radius of the de Vaucouleurs profile in units of ``half_light_radius``, the disc's.
    sersic_index : torch.Tensor, shape (n,), or float, optional
        Sersic index of the disc, within 0.5 and 6; exponential by default. Gradients do
        not reach it: `render_derivatives` has them.

    Returns
    -------
    stamps : torch.Tensor, shape (n, bands, size, size)
        Each adds up to the sum of its PSF.
    """
    shape = half_light_radius, e1, e2
    options = {"bulge_fraction": bulge_fraction, "bulge_size": bulge_size, "sersic_index": sersic_index}
    stamps = render_derivatives(
        psf, x, y, *shape, size=size, pixel_scale=pixel_scale, parameters=0, **options
    )
    return stamps[:, :, 0]


def render_derivatives(
    psf,
    x,
    y,
    half_light_radius,
    e1,
    e2,
    *,
    size,
    pixel_scale,
    bulge_fraction=0.0,
    bulge_size=1.0,
    sersic_index=1.0,
    parameters=6,
):
    """
    Stamps of unit flux and their derivatives by the parameters of the source.

    Parameters
    ----------
    psf, x, y, half_light_radius, e1, e2, size, pixel_scale, bulge_fraction, bulge_size, sersic_index
        As for `render_stamps`.
    parameters : int, optional
        How many derivatives to take, in this order: x, y (per pixel of the stamp), the natural logarithm of
        the half-light radius, e1, e2, the bulge fraction, the logarithm of the Sersic index.

    Returns
    -------
    stamps : torch.Tensor, shape (n, bands, 1 + parameters, size, size)
        The stamp, then its derivatives.
    """
    bulge_fraction, sersic_index = (
        torch.as_tensor(value, dtype=x.dtype, device=x.device) for value in (bulge_fraction, sersic_index)
    )
    x, y, half_light_radius, e1, e2, bulge_fraction, sersic_index = torch.broadcast_tensors(
        x, y, half_light_radius, e1, e2, bulge_fraction, sersic_index
    )
    if not isinstance(psf, PSFTransform):
        psf = psf_transform(psf, size)
    single = len(psf.aliases) == 1
    real_at_nyquist = single and size % 2 == 0
    # The sums have exact gradients; tables are quicker, and have all indices.
    has_gradients = any(value.requires_grad for value in (half_light_radius, e1, e2, bulge_fraction))
    if has_gradients and parameters < 7 and (sersic_index == 1).all():
        profiles = partial(mixtures, bulge_fraction, bulge_size)
    else:
        tables = galaxy_tables(bulge_fraction, bulge_size, sersic_index, parameters=parameters)
        profiles = partial(look_up, tables)
    parts = []
    for along_y, along_x, bands, values in psf.aliases:
        ky, kx = psf.frequencies(along_y, along_x, x)
        source = _galaxy_terms(profiles, half_light_radius / pixel_scale, e1, e2, ky, kx, parameters)
        # The origin of the transform is the corner; sources are placed from the middle pixel.
        rows = _shift(y + size // 2, ky, real_at_nyquist=real_at_nyquist)
        columns = _shift(x + size // 2, kx, real_at_nyquist=real_at_nyquist)
        source = source * (rows[:, None, :, None] * columns[:, None, None, :])
        if real_at_nyquist and parameters:
            # A derivative by position has no component at the Nyquist frequency.
            source[:, 1, :, -1] = 0
            source[:, 2, size // 2, :] = 0
        parts.append((bands, (values if values.ndim == 4 else values[None])[:, :, None], source[:, None]))

    def images(few):
        total = None
        for bands, values, source in parts:
            part = (values[few] if len(values) > 1 else values) * source[few]
            if total is None:
                total = part
            elif len(bands) == total.shape[1]:
                total = total + part
            else:
                total = total.index_add(1, bands, part)
        return _inverse(total, size)

    # Few at a time, so that what passes between product and transform stays in the processor's cache.
    return torch.cat([images(slice(k, k + _CACHED)) for k in range(0, len(x), _CACHED)] or [images(slice(0))])


def render_image(
    psf,
    x,
    y,
    flux,
    half_light_radius,
    e1,
    e2,
    *,
    shape,
    pixel_scale,
    size=64,
    bulge_fraction=0.0,
    bulge_size=1.0,
    sersic_index=1.0,
):
    """
    Image of a scene: the sum of its sources' stamps.

    Parameters
    ----------
    psf : torch.Tensor, shape (bands, k, k), or `PSFTransform`
        PSF images that add up to 1.
    x, y : torch.Tensor, shape (n,)
        Positions in pixels of this image, 0 at the centre of the first pixel.
    flux : torch.Tensor, shape (n, bands)
        Total fluxes.
    half_light_radius, e1, e2, bulge_fraction, bulge_size, sersic_index, pixel_scale
        As for `render_stamps`.
    shape : tuple of int
        ``(ny, nx)`` of the image.
    size : int, optional
        Width of the stamps in pixels.

    Returns
    -------
    image : torch.Tensor, shape (bands, ny, nx)
        Differentiable by every input but the shapes and the index. Stamps may lie partly or wholly outside.
    """
    ny, nx = shape
    left = x.detach().round().to(torch.int64)
    bottom = y.detach().round().to(torch.int64)
    stamps = render_stamps(
        psf,
        x - left,
        y - bottom,
        half_light_radius,
        e1,
        e2,
        size=size,
        pixel_scale=pixel_scale,
        bulge_fraction=bulge_fraction,
        bulge_size=bulge_size,
        sersic_index=sersic_index,
    )
    stamps = stamps * flux[:, :, None, None]
    steps = torch.arange(size, device=x.device) - size // 2
    columns = left[:, None] + steps
    rows = bottom[:, None] + steps
    inside = ((rows >= 0) & (rows < ny))[:, :, None] & ((columns >= 0) & (columns < nx))[:, None, :]
    index = (rows.clamp(0, ny - 1) * nx)[:, :, None] + columns.clamp(0, nx - 1)[:, None, :]
    values = torch.where(inside[:, None], stamps, torch.zeros_like(stamps))
    image = torch.zeros(stamps.shape[1], ny * nx, dtype=stamps.dtype, device=x.device)
    image = image.index_add(1, index.reshape(-1), values.transpose(0, 1).reshape(stamps.shape[1], -1))
    return image.reshape(-1, ny, nx)
