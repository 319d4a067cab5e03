# Licensed under a 3-clause BSD style license - see LICENSE
"""Pictures: colours mean what they say, objects are drawn where they are, and bad input is refused."""

import sys

import numpy as np
import pytest
from astropy import units as u
from astropy.coordinates import SkyCoord

from jaisp.catalog import plots
from jaisp.exceptions import BandError, ConfigError, ImageError, MissingDependencyError
from jaisp.image import SurveyImage
from jaisp.surveys import EUCLID, RUBIN

from .drawn import drawn_pair, drawn_table, make_image, tan_wcs


@pytest.fixture(scope="module")
def pair():
    return drawn_pair()


@pytest.fixture
def table(pair):
    return drawn_table(pair)


class TestRGB:
    def test_a_mean_galaxy_is_white(self):
        """Flux density rising with wavelength, at the same signal-to-noise ratio in all bands."""
        fluxes = {band.name: 80 * (band.wavelength / 700) ** 1.2 for band in EUCLID.bands}
        red, green, blue = plots.rgb(make_image(EUCLID, fluxes))[60, 60]
        np.testing.assert_allclose([red, blue], green, rtol=0.1)

    def test_hue_follows_the_bands(self):
        red_source = plots.rgb(make_image(RUBIN, {"g": 5, "r": 30, "z": 150}))[30, 30]
        blue_source = plots.rgb(make_image(RUBIN, {"g": 150, "r": 50, "z": 5}))[30, 30]
        assert red_source[0] > red_source[1] > red_source[2]
        assert blue_source[0] < blue_source[1] < blue_source[2]

    @pytest.mark.parametrize("bands", [("VIS",), ("VIS", "H"), ("Y", "J", "H"), ("VIS", "Y", "J", "H")])
    def test_any_bands(self, bands):
        picture = plots.rgb(make_image(EUCLID, dict.fromkeys(bands, 100)))
        assert picture.shape == (120, 120, 3)
        assert picture.min() >= 0
        assert picture.max() <= 1
        assert picture[60, 60].max() > 0.9
        assert picture[:20].mean() < 0.3
        if len(bands) == 1:
            np.testing.assert_allclose(picture[..., 0], picture[..., 2])

    def test_chosen_bands(self):
        image = make_image(RUBIN, {"g": 100, "r": 50, "z": 10})
        swapped = plots.rgb(image, ("z", "r", "g"))[30, 30]
        assert swapped[0] > swapped[2]
        one_band_twice = plots.rgb(image, (("g", "r"), "r", "z"))
        assert one_band_twice.shape == (60, 60, 3)

    def test_masked_pixels_are_filled_from_good_ones(self):
        image = make_image(EUCLID, {"VIS": 60, "Y": 60, "H": 60})
        expected = plots.rgb(image)
        image.data["VIS"][58:61, 59] = 1e5
        image.mask["VIS"][58:61, 59] = True
        np.testing.assert_allclose(plots.rgb(image)[55:65, 55:65], expected[55:65, 55:65], atol=0.25)

    def test_large_holes_are_dark(self):
        data = np.full((64, 64), 1e5) + np.random.default_rng(0).normal(size=(64, 64))
        data[20:, :] = np.random.default_rng(0).normal(size=(44, 64))
        mask = np.zeros((64, 64), bool)
        mask[:20] = True
        image = SurveyImage({"VIS": data}, tan_wcs(0.1, 64), survey=EUCLID, mask={"VIS": mask})
        assert plots.rgb(image)[:14].max() < 0.3

    def test_large_images_are_averaged_down(self, monkeypatch):
        monkeypatch.setattr(plots.drawing, "_MAX_PANEL", 50)
        assert plots.rgb(make_image(EUCLID, {"VIS": 50})).shape == (40, 40, 3)

    def test_bad_bands(self):
        image = make_image(EUCLID, {"VIS": 50})
        with pytest.raises(BandError, match="'H' is not in the image; it has VIS"):
            plots.rgb(image, ("VIS", "VIS", "H"))
        with pytest.raises(ConfigError, match="three channels"):
            plots.rgb(image, ("VIS", "VIS"))


class TestCatalog:
    def test_objects_are_drawn_where_they_are(self, table, pair):
        figure = plots.plot_catalog(table, pair, title="a title")
        rubin, euclid = figure.axes[:2]
        for panel, image in ((rubin, pair.rubin), (euclid, pair.euclid)):
            solid, dotted = panel.collections
            expected = np.column_stack(image.wcs.world_to_pixel(table["sky_centroid"]))
            drawn = np.vstack([solid.get_offsets(), dotted.get_offsets()])
            np.testing.assert_allclose(drawn, expected, atol=1e-6)
            picture = panel.images[0].get_array()
            for x, y in np.round(expected).astype(int):
                assert picture[y, x].max() > 0.7
        # the third object is only in Euclid's own slots
        assert len(rubin.collections[1].get_offsets()) == 1
        assert len(euclid.collections[1].get_offsets()) == 0
        assert {text.get_text() for text in euclid.texts} >= {"1", "2", "3", "N", "E"}
        figure.canvas.draw()

    def test_positions_on_a_picture_that_is_averaged_down(self, table, pair, monkeypatch):
        monkeypatch.setattr(plots.drawing, "_MAX_PANEL", 60)
        panel = plots.plot_catalog(table, pair).axes[1]
        picture = panel.images[0].get_array()
        assert picture.shape == (60, 60, 3)
        for x, y in np.round(panel.collections[0].get_offsets()).astype(int):
            assert picture[y, x].max() > 0.7

    def test_images_are_aligned_first(self, table, pair):
        figure = plots.plot_catalog(table, (None, pair.euclid), label=False)
        assert len(figure.axes) == 2  # one survey and the colour bar
        assert {text.get_text() for text in figure.axes[0].texts} <= {"N", "E", "2″"}

    def test_objects_off_the_image_are_not_drawn(self, table, pair):
        table["sky_centroid"] = SkyCoord([53.0, 53.0, 53.1], [-28.0, -28.0 + 4 / 3600, -28.0], unit="deg")
        image = pair.euclid.select(["VIS"])
        image.mask["VIS"] = image.mask["VIS"].copy()
        image.mask["VIS"][80:] = True
        solid, dotted = plots.plot_catalog(table, (None, image)).axes[0].collections
        assert len(solid.get_offsets()) == 1
        assert len(dotted.get_offsets()) == 0

    def test_empty_catalogue(self, table, pair):
        plots.plot_catalog(table[:0], pair).canvas.draw()


class TestCutouts:
    def test_one_row_each_and_one_column_for_each_band(self, table, pair):
        figure = plots.plot_cutouts(table, pair, [2, 3])
        assert len(figure.axes) == 2 * 5
        assert [panel.get_title() for panel in figure.axes[:5]] == [
            "Rubin\ng",
            "Rubin\nr",
            "Rubin\ni",
            "Euclid\nVIS",
            "Euclid\nY",
        ]
        assert figure.axes[0].texts[0].get_text() == "25σ"
        assert not figure.axes[5].texts  # its fluxes are NaN
        figure.canvas.draw()

    def test_the_object_is_in_the_middle(self, table, pair):
        panel = plots.plot_cutouts(table, pair, [1], size=2 * u.arcsec).axes[3]
        left, right, bottom, top = panel.images[0].get_extent()
        pixels = np.asarray(panel.images[0].get_array())
        y, x = np.unravel_index(pixels.argmax(), pixels.shape)
        assert abs(left + x + 0.5 - np.mean(panel.get_xlim())) < 2
        assert abs(bottom + y + 0.5 - np.mean(panel.get_ylim())) < 2
        assert right - left >= 20
        assert top - bottom >= 20

    def test_object_outside_the_image(self, table, pair):
        table["sky_centroid"] = SkyCoord([53.1] * 3, [-28.0] * 3, unit="deg")
        figure = plots.plot_cutouts(table, pair, [1])
        assert not figure.axes[0].images
        figure.canvas.draw()

    def test_refusals(self, table, pair):
        with pytest.raises(ConfigError, match="no object 9 in this catalogue of 3 objects"):
            plots.plot_cutouts(table, pair, [9])
        with pytest.raises(ConfigError, match="no cut-outs to draw"):
            plots.plot_cutouts(table[:0], pair)
        with pytest.raises(ConfigError, match="no object is asked for"):
            plots.plot_cutouts(table, pair, [])
        with pytest.raises(ConfigError, match="size is without a unit; allowed: an angle"):
            plots.plot_cutouts(table, pair, [1], size=4)
        with pytest.raises(ConfigError, match="images is a SurveyImage; give a pair"):
            plots.plot_cutouts(table, pair.rubin, [1])


class TestCrossmatch:
    def test_residuals_are_euclid_minus_rubin(self, table):
        figure = plots.plot_crossmatch(table)
        points = figure.axes[0].collections[0].get_offsets()
        np.testing.assert_allclose(points, [[-30, 10]] * 2, atol=0.01)
        assert "median -30, +10 mas" in figure.axes[0].get_title()
        left, right = figure.axes[0].get_xlim()
        assert left > right  # east to the left
        figure.canvas.draw()

    def test_masked_coordinates(self, table):
        """The catalogue masks the positions that a survey does not have."""
        from astropy.utils.masked import Masked

        sky = table["rubin_sky_centroid"]
        mask = table["rubin_slot"].mask
        table["rubin_sky_centroid"] = SkyCoord(Masked(sky.ra, mask=mask), Masked(sky.dec, mask=mask))
        points = plots.plot_crossmatch(table).axes[0].collections[0].get_offsets()
        np.testing.assert_allclose(points, [[-30, 10]] * 2, atol=0.01)

    def test_slots_of_both_surveys_that_are_not_matched(self, table):
        table["match_similarity"].mask[1] = True
        figure = plots.plot_crossmatch(table)
        assert len(figure.axes[0].collections[0].get_offsets()) == 1
        assert figure.get_suptitle() == "1 of 3 objects are matched between the surveys"

    def test_one_survey_alone(self, table):
        table["rubin_slot"].mask = table["match_similarity"].mask = True
        with pytest.raises(ImageError, match="matched between the two surveys"):
            plots.plot_crossmatch(table)


def test_without_matplotlib(monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(MissingDependencyError, match=r"pip install 'jaisp\[plot\]'"):
        plots.require_matplotlib()
