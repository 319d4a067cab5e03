# Licensed under a 3-clause BSD style license - see LICENSE
"""
Two surveys on one grid, through their WCSs.

Euclid gives the grid (0.1 arcsec, its own orientation); Rubin lies on the grid of twice that scale which
nests in it. Pixels that already lie there are not touched.
"""

from dataclasses import dataclass, field

import numpy as np
from astropy.wcs import WCS

from jaisp.exceptions import ConfigError, ImageError, OverlapError
from jaisp.image import Finding, SurveyImage
from jaisp.image.psf_pixels import resample_psf
from jaisp.io._resample import add_up, move, oversampling, reproject_image
from jaisp.io.grid import (
    Nesting,
    bounding_box,
    can_rescale,
    clip_polygon,
    describe_position,
    footprint,
    local_jacobian,
    nesting,
    polygon_area,
    rescaled,
    shifted,
    sky_jacobian,
    tangent_grid,
    transform,
)
from jaisp.io.tiles import Tile, check_layout, make_tiles
from jaisp.surveys import EUCLID, RUBIN

__all__ = ["AlignedPair", "align"]

_REGIONS = ("union", "euclid", "overlap")
_NOT_HERE = "no usable pixel in the region"  # said of a band
# Pixels whose scale is this near to the grid's are taken as they are.
_SCALE_TOLERANCE = 5e-3
# A common region smaller than this (in square grid pixels) is none.
_SMALLEST_OVERLAP = 1.0
# A union larger than this many times both footprints, plus a field of 100 arcsec, is nearly empty.
_LARGEST_UNION, _SMALL_FIELD = 4, 1000**2


@dataclass(frozen=True, eq=False)
class AlignedPair:
    """
    Two surveys, or one, on one grid; made by `align`. ``rubin, euclid = align(...)`` unpacks the images.

    Attributes
    ----------
    rubin : `~jaisp.image.SurveyImage` or None
        On the 0.2 arcsec grid, of half the ``shape``: its pixel (j, i) covers grid pixels (2j..2j+1,
        2i..2i+1).
    euclid : `~jaisp.image.SurveyImage` or None
        On the 0.1 arcsec grid.
    wcs : `~astropy.wcs.WCS`
        WCS of the 0.1 arcsec grid.
    shape : tuple of int
        Shape (ny, nx) of the 0.1 arcsec grid; even.
    reference : str
        ``"euclid"``, or ``"rubin"`` where there is no Euclid image: whose frame the positions are in.
    reference_wcs : `~astropy.wcs.WCS`
        WCS of the reference image as it was given.
    region : str
        What `align` was asked for.
    """

    rubin: SurveyImage | None
    euclid: SurveyImage | None
    wcs: WCS
    shape: tuple
    reference: str
    reference_wcs: WCS
    region: str = "union"
    _to_reference: tuple | None = field(default=None, repr=False)

    def __iter__(self):
        return iter((self.rubin, self.euclid))

    def to_reference(self, x, y):
        """
        Positions on the grid as positions on the reference image as it was given.

        Parameters
        ----------
        x, y : float or array
            Positions in pixels of the 0.1 arcsec grid, 0-based.

        Returns
        -------
        x, y : float or array
            Positions in pixels of the reference image, 0-based.
        """
        x, y = np.asarray(x, float), np.asarray(y, float)
        if self._to_reference is None:
            return transform(self.wcs, self.reference_wcs, x, y)
        x0, y0, scale = self._to_reference
        return (x + x0 + 0.5) / scale - 0.5, (y + y0 + 0.5) / scale - 0.5

    def tiles(self, *, size=384, halo=32):
        """
        Cut the pair into tiles, lazily.

        Parameters
        ----------
        size : int
            Side of a tile in pixels of the 0.1 arcsec grid; even.
        halo : int
            Width of the overlap on each side, in the same pixels; even.

        Returns
        -------
        tiles : iterator of `~jaisp.io.Tile`
            Every pixel is owned by one tile; tiles that own no valid pixel are left out. See
            `jaisp.io.tiles.make_tiles`.
        """
        check_layout(size, halo)  # here, and not when the first tile is asked for
        return make_tiles(self, size=size, halo=halo)

    def tile(self, own, *, index=0, size=384, halo=32):
        """
        Cut one tile around a window of the grid.

        Parameters
        ----------
        own : tuple of int
            Owned window (x0, x1, y0, y1) in pixels of the grid, half open.
        index, size, halo : int
            As in `~jaisp.io.Tile`.

        Returns
        -------
        `~jaisp.io.Tile`
        """
        return Tile(self, own, index=index, size=size, halo=halo)

    def __repr__(self):
        images = " + ".join(
            f"{image.survey.label} {','.join(image.bands)}" for image in (self.rubin, self.euclid) if image
        )
        return (
            f"<AlignedPair {images}, {self.shape[0]} x {self.shape[1]} px in the frame of {self.reference}>"
        )


def align(rubin=None, euclid=None, *, region="union", tiles=False):
    """
    Put both surveys on one grid.

    The grid has the orientation of the Euclid image (that of Rubin where no Euclid image is given) and pixels
    of 0.1 arcsec; Rubin lies on the grid of 0.2 arcsec that nests in it. An image whose pixels already lie
    there is used as it is, an image of half the scale (ground bands on the Euclid MER grid) is added up 2 x
    2, any other is reprojected: flux, noise of summed flux, mask and PSF go with it. The WCSs are trusted: no
    offset is measured.

    Parameters
    ----------
    rubin, euclid : `~jaisp.image.SurveyImage`, optional
        One of them may be missing.
    region : {"union", "euclid", "overlap"}
        Extent of the grid: the box around both images, the image of the reference survey, or the box around
        the sky they share. With ``"euclid"`` a Euclid image of even shape is not copied.
    tiles : bool
        Return an iterator over tiles instead of the pair.

    Returns
    -------
    pair : `AlignedPair` or iterator of `~jaisp.io.Tile`

    Raises
    ------
    ImageError
        If an image is missing, of the wrong survey, or no `~jaisp.image.SurveyImage`.
    OverlapError
        If the images share no sky, or so little that the box around them is nearly empty.

    Notes
    -----
    Reprojection takes about 0.2 s per band for 3 x 3 arcmin on one core, and works in blocks: beside the
    images and the result it needs less than 200 MB. ``region="union"`` copies a Euclid image unless it holds
    all of Rubin's; for mosaics prefer ``"euclid"`` or ``"overlap"``.

    Examples
    --------
    >>> import numpy as np
    >>> from astropy.wcs import WCS
    >>> from jaisp.image import SurveyImage
    >>> from jaisp.io import align
    >>> wcs = WCS(naxis=2)
    >>> wcs.wcs.ctype = "RA---TAN", "DEC--TAN"
    >>> wcs.wcs.crval = 53.0, -28.0
    >>> wcs.wcs.cdelt = -0.1 / 3600, 0.1 / 3600
    >>> pixels = np.random.default_rng(1).normal(size=(64, 64))
    >>> pair = align(euclid=SurveyImage({"VIS": pixels}, wcs, survey="euclid"))
    >>> pair
    <AlignedPair Euclid VIS, 64 x 64 px in the frame of euclid>
    >>> pair.to_reference(10, 20)
    (np.float64(10.0), np.float64(20.0))
    """
    _check(rubin, RUBIN)
    _check(euclid, EUCLID)
    if rubin is None and euclid is None:
        raise ImageError("nothing to align; give a Rubin image, a Euclid image, or both")
    if region not in _REGIONS:
        raise ConfigError(f"unknown region {region!r}; allowed: {', '.join(_REGIONS)}")
    reference = rubin if euclid is None else euclid
    grid, reference_lies = _reference_grid(reference)
    lies = {reference.survey.name: reference_lies}
    if rubin is not None and euclid is not None:
        lies["rubin"] = nesting(rubin.wcs, rubin.shape, grid, (2, 1))
    x0, x1, y0, y1 = _region(rubin, euclid, grid, lies, region)
    shape = y1 - y0, x1 - x0
    wcs = shifted(grid, x0, y0, shape)
    pair = AlignedPair(
        rubin=_place(rubin, wcs, (x0, y0), shape, 2, lies.get("rubin")),
        euclid=_place(euclid, wcs, (x0, y0), shape, 1, lies.get("euclid")),
        wcs=wcs,
        shape=shape,
        reference=reference.survey.name,
        reference_wcs=reference.wcs,
        region=region,
        _to_reference=reference_lies and (x0 - reference_lies.x, y0 - reference_lies.y, reference_lies.scale),
    )
    return pair.tiles() if tiles else pair


def _check(image, survey):
    if image is None:
        return
    if not isinstance(image, SurveyImage):
        raise ImageError(
            f"{survey.name} is a {type(image).__name__}; "
            f"allowed: a SurveyImage, e.g. from jaisp.io.read_{survey.name}"
        )
    if image.survey != survey:
        raise ImageError(
            f"{survey.name} is an image of {image.survey.label}; give the {survey.label} image there"
        )


def _reference_grid(image):
    """0.1 arcsec grid in the frame of an image, and how the image lies on it (None: it does not)."""
    ny, nx = image.shape
    scales = np.linalg.svd(sky_jacobian(image.wcs, (nx - 1) / 2, (ny - 1) / 2), compute_uv=False)
    for scale in (2, 1) if image.survey == RUBIN else (1,):
        same = np.all(np.abs(scales / (scale * EUCLID.pixel_scale) - 1) < _SCALE_TOLERANCE)
        if same and can_rescale(image.wcs):
            return rescaled(image.wcs, scale, (ny * scale, nx * scale)), Nesting(scale, 0, 0)
    return tangent_grid(image.wcs, image.shape, EUCLID.pixel_scale), None


def _extent(image, grid, lies):
    """Polygon and box of whole pixels of an image on the grid."""
    if lies is None:
        polygon = footprint(image.wcs, image.shape, grid)
        return polygon, bounding_box(polygon)
    ny, nx = (n * lies.scale for n in image.shape)
    x0, x1, y0, y1 = lies.x, lies.x + nx, lies.y, lies.y + ny
    return np.array([[x0, y0], [x1, y0], [x1, y1], [x0, y1]]) - 0.5, (x0, x1, y0, y1)


def _region(rubin, euclid, grid, lies, region):
    """Box (x0, x1, y0, y1) of the grid: even sides, and even or odd origin as Rubin's pixels need it."""
    own = (rubin if euclid is None else euclid).survey.name
    if rubin is None or euclid is None:
        box = _extent(rubin or euclid, grid, lies[own])[1]
    else:
        _check_near(rubin, euclid)
        polygon, rubin_box = _extent(rubin, grid, lies["rubin"])
        euclid_polygon, euclid_box = _extent(euclid, grid, lies["euclid"])
        common = clip_polygon(polygon, euclid_box)
        if polygon_area(common) < _SMALLEST_OVERLAP:
            raise _no_overlap(rubin, euclid)
        if region == "euclid":
            box = euclid_box
        elif region == "overlap":
            box = bounding_box(common)
        else:
            low, high = np.minimum(rubin_box, euclid_box), np.maximum(rubin_box, euclid_box)
            box = tuple(int(edge) for edge in (low[0], high[1], low[2], high[3]))
            _check_union(box, polygon_area(polygon) + polygon_area(euclid_polygon))
    fixed = lies.get("rubin")
    # 2 x 2 grid pixels make a pixel of Rubin's: where Rubin lies on such a grid, begin with a whole one.
    odd = (fixed.x % 2, fixed.y % 2) if fixed is not None and fixed.scale == 2 else (box[0] % 2, box[2] % 2)
    x0, y0 = box[0] - (box[0] - odd[0]) % 2, box[2] - (box[2] - odd[1]) % 2
    return x0, box[1] + (box[1] - x0) % 2, y0, box[3] + (box[3] - y0) % 2


def _check_near(rubin, euclid):
    """Refuse images far apart before a projection is asked about the other side of the sky."""
    (here, radius), (there, other) = (describe_position(image.wcs, image.shape) for image in (rubin, euclid))
    if here.separation(there).deg > radius + other:
        raise _no_overlap(rubin, euclid)


def _no_overlap(rubin, euclid):
    here, there = (describe_position(image.wcs, image.shape)[0] for image in (rubin, euclid))
    apart = here.separation(there)
    distance = f"{apart.deg:.4g} deg" if apart.deg > 1 else f"{apart.arcsec:.4g} arcsec"
    places = (f"RA {place.ra.deg:.5f}, Dec {place.dec.deg:.5f}" for place in (here, there))
    return OverlapError(
        "Rubin (centre {}) and Euclid (centre {}) share no sky: their centres are {} apart; "
        "give images of the same field, or one survey alone".format(*places, distance)
    )


def _check_union(box, area):
    union = (box[1] - box[0]) * (box[3] - box[2])
    if union > _LARGEST_UNION * area + _SMALL_FIELD:
        raise OverlapError(
            f"the box around both images has {union / 1e6:.4g} Mpx of 0.1 arcsec, the images only "
            f'{area / 1e6:.4g}: they hardly overlap; use region="overlap" or region="euclid"'
        )


def _place(image, wcs, origin, shape, binning, lies):
    """Bring an image onto its part of the grid; ``binning`` is the side of its pixels there."""
    if image is None:
        return None
    shape = shape[0] // binning, shape[1] // binning
    target = rescaled(wcs, 1 / binning, shape) if binning > 1 else wcs
    if lies is None:
        # The PSF is turned and scaled as in the middle of the image itself, which the region may not hold.
        middle = transform(image.wcs, target, (image.shape[1] - 1) / 2, (image.shape[0] - 1) / 2)
        jacobian = local_jacobian(target, image.wcs, *middle)
        oversample = oversampling(jacobian)
        planes = reproject_image(image, target, shape, oversample=oversample)
        psf = {band: resample_psf(image.psf[band], jacobian, oversample=oversample) for band in image.bands}
        how = "reprojected with cubic splines"
    elif lies.scale < binning:
        planes = add_up(image, origin[0] - lies.x, origin[1] - lies.y, shape)
        psf = {
            band: resample_psf(image.psf[band], 2 * np.eye(2), oversample=2, interpolated=False)
            for band in image.bands
        }
        how = "added up 2 x 2"
    else:
        start = (origin[0] - lies.x) // binning, (origin[1] - lies.y) // binning
        if start == (0, 0) and shape == image.shape:
            return image
        planes = move(image, *start, shape)
        psf, how = image.psf, "cut or padded by whole pixels"
    return _assemble(image, planes, psf, target, how)


def _assemble(image, planes, psf, wcs, how):
    """Make the image on the grid, with all that the original knew."""
    bands = [band for band in image.bands if not planes.mask[band].all()]
    if not bands:
        raise OverlapError(
            f"{image.survey.label} has no usable pixel in the region asked for; "
            "use another region, or leave this survey out"
        )
    new = SurveyImage(
        {band: planes.data[band] for band in bands},
        wcs,
        survey=image.survey,
        variance={band: planes.variance[band] for band in bands},
        mask={band: planes.mask[band] for band in bands},
        psf={band: psf[band] for band in bands},
        meta={**image.meta, "alignment": how},
        copy=False,
    )
    new._stated = image._stated.intersection(bands)
    dropped = [Finding(band, _NOT_HERE, "left out") for band in image.bands if band not in bands]
    # Of its PSF the original has told; what was left out of another region is of no concern here.
    own = [finding for finding in new.findings if not finding.what.startswith("PSF")]
    image.findings[:] = [finding for finding in image.findings if finding.what != _NOT_HERE]
    image.findings += [finding for finding in dropped + own if finding not in image.findings]
    # One list: what is found out later, as of the noise, is told on the image that the user gave too.
    new.findings = image.findings
    # Not "given", neither here nor in what is selected of it, but from where the original's came.
    new._start({"_psf_pair": {band: (new._given_psf[band], image.psf_source[band]) for band in bands}})
    return new
