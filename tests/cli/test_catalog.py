# Licensed under a 3-clause BSD style license - see LICENSE
"""``jaisp catalog`` on files: what it writes; what it refuses, early and with nothing left behind."""

import re
from pathlib import Path

import numpy as np
import pytest
from astropy.io import fits

from jaisp.catalog import read_catalog
from jaisp.cli import main

from .helpers import SKY, header, psf, write_euclid, write_rubin


@pytest.fixture
def refuse(workplace, contents, capsys, weights):
    """Run ``jaisp catalog``, and see it refuse in one line that holds ``text``, leaving no file."""

    def run(text, *arguments, output="out.fits"):
        before = contents()
        assert main(["catalog", *map(str, arguments), "-o", output, "--weights", weights]) == 2
        out, err = capsys.readouterr()
        assert not out
        assert re.fullmatch(rf"jaisp: error: .*{text}.*\n", err), err
        assert contents() == before

    return run


class TestItRuns:
    @pytest.mark.parametrize("surveys", [("rubin",), ("euclid",), ("rubin", "euclid")])
    def test_either_survey_or_both(self, surveys, survey_files, weights, workplace, contents, capsys):
        arguments = [item for name in surveys for item in (f"--{name}", *survey_files[name])]
        command = ["catalog", *arguments, "-o", "out.fits", "--weights", weights, "--activity", "0"]
        assert main([*command, "--device", "cpu", "--workers", "1"]) == 0
        out, err = capsys.readouterr()
        assert re.match(r"out.fits: \d+ objects", out)
        assert not re.search("error|Traceback", err)
        assert contents() == ["out.fits"]
        table = read_catalog("out.fits")
        assert "activity" in table.colnames
        assert "rubin_i_flux" in table.colnames
        assert table.meta

    @pytest.mark.parametrize("suffix", [".ecsv", ".parquet"])
    def test_formats_and_pictures(self, suffix, survey_files, weights, workplace, contents, capsys):
        (workplace / "picture.png").write_text("an older picture")
        arguments = ["--rubin", *survey_files["rubin"], "--euclid", *survey_files["euclid"]]
        arguments += ["-o", f"out{suffix}", "--plot", "picture.png", "--weights", weights]
        assert main(["catalog", *arguments]) == 0
        assert contents() == [f"out{suffix}", "picture.png"]
        assert (workplace / "picture.png").read_bytes().startswith(b"\x89PNG")
        read_catalog(f"out{suffix}")

    def test_an_interrupt_leaves_nothing(
        self, survey_files, weights, workplace, contents, capsys, monkeypatch
    ):
        def interrupt(*args, **kwargs):
            raise KeyboardInterrupt

        monkeypatch.setattr("astropy.table.QTable.write", interrupt)
        command = ["catalog", "--euclid", *survey_files["euclid"], "-o", "out.fits", "--weights", weights]
        assert main(command) == 130
        assert capsys.readouterr().err.endswith("jaisp: interrupted\n")
        assert contents() == []

    def test_what_files_do_not_tell(self, survey_files, weights, workplace, capsys):
        """Band, PSF and zero point by options."""
        sky = fits.getdata(survey_files["rubin"][0], "IMAGE")
        fits.writeto("mine.fits", sky / np.float32(10 ** ((31.4 - 27.0) / 2.5)), header(0.2, 48))
        fits.writeto("its_psf.fits", psf(0.2, 0.8))
        options = ["--rubin-psf", "its_psf.fits", "--rubin-zero-point", "27.0", "--activity", "0"]
        command = ["catalog", "--rubin", "i=mine.fits", *options, "-o", "out.fits", "--weights", weights]
        assert main(command) == 0
        band = read_catalog("out.fits").meta["bands"]["rubin_i"]
        assert band["psf_source"] == "given"
        # noise of 2 nJy a pixel, whatever the units of the file
        area = 1 / np.sum(psf(0.2, 0.8) ** 2)
        assert band["depth_5sigma_ab"] == pytest.approx(31.4 - 2.5 * np.log10(10 * np.sqrt(area)), abs=0.3)

    def test_region(self, survey_files, weights, workplace):
        command = ["catalog", "--rubin", *survey_files["rubin"], "--euclid", *survey_files["euclid"]]
        command += ["-o", "out.fits", "--weights", weights, "--region", "euclid", "--plot", "out.png"]
        assert main(command) == 0
        assert read_catalog("out.fits").meta["grid"]["shape"] == [96, 96]

    @pytest.mark.parametrize(
        "name", ["EUCLJ174752.17+660743.0.fits", "example_ra63.587_dec-49.684_300px.fits"]
    )
    def test_real_cutouts(self, name, realdata, weights, workplace, contents, capsys):
        cutout = str(realdata / "euclid_q1" / name)
        both = ["--rubin", cutout] if name.startswith("EUCLJ") else []
        assert main(["catalog", *both, "--euclid", cutout, "-o", "out.fits", "--weights", weights]) == 0
        assert contents() == ["out.fits"]


class TestOutput:
    def test_before_the_work(self, survey_files, refuse, workplace):
        euclid = ["--euclid", *survey_files["euclid"]]
        refuse("folder 'no' does not exist; make it first", *euclid, output="no/out.fits")
        refuse(
            "unknown suffix '.fit'.*did you mean '.fits'.*allowed: .fits, .ecsv, .parquet",
            *euclid,
            output="o.fit",
        )
        refuse("unknown suffix '.jpg'.*allowed: .png, .pdf, .svg", *euclid, "--plot", "a.jpg")
        (workplace / "file").touch()
        refuse("folder 'file' does not exist", *euclid, output="file/out.fits")
        (workplace / "out.fits").mkdir()
        refuse("it is a folder", *euclid)

    def test_an_input_is_not_overwritten(self, refuse, workplace):
        path = write_euclid(workplace / "euclid_VIS.fits", "VIS")
        refuse("it is an input; choose another name", "--euclid", path, output="euclid_VIS.fits")
        refuse("it is an input; choose another name", "--euclid", f"VIS={path}", output="euclid_VIS.fits")
        psf = workplace / "psf.fits"
        fits.writeto(psf, np.ones((9, 9)))
        before = psf.read_bytes()
        options = "--euclid", path, "--euclid-psf", psf
        refuse("it is an input; choose another name", *options, output="psf.fits")
        # Nor any other file of images, such as an RMS map beside its image.
        refuse("it holds images; choose another name", "--euclid", path, output="psf.fits")
        assert psf.read_bytes() == before

    def test_what_is_said_of_images_that_are_not_given(self, refuse, workplace):
        path = write_euclid(workplace / "euclid_VIS.fits", "VIS")
        refuse("--rubin-psf is given, but no image", "--euclid", path, "--rubin-psf", "psf.fits")
        refuse("--rubin-zero-point is given.*give --rubin too", "--euclid", path, "--rubin-zero-point", "27")

    def test_not_writable(self, survey_files, refuse, monkeypatch):
        def forbid(*args, **kwargs):
            raise PermissionError(13, "Permission denied")

        monkeypatch.setattr("tempfile.TemporaryFile", forbid)
        refuse(r"folder '.' is not writable \(Permission denied\)", "--euclid", *survey_files["euclid"])

    def test_nothing_to_do(self, refuse):
        refuse("give --rubin, --euclid or both")


class TestWeights:
    def test_weights(self, workplace, capsys, survey_files, contents):
        def refuse(text, folder):
            before = contents()
            arguments = ["--euclid", *survey_files["euclid"], "-o", "out.fits", "--weights", folder]
            assert main(["catalog", *arguments]) == 2
            assert re.fullmatch(rf"jaisp: error: .*{text}.*\n", capsys.readouterr().err)
            assert contents() == before

        refuse("weights folder 'no' does not exist", "no")
        (workplace / "empty").mkdir()
        refuse("has no config.json", "empty")
        (workplace / "empty" / "config.json").write_text("{}")
        refuse("has no model.safetensors", "empty")
        (workplace / "empty" / "model.safetensors").write_bytes(b"")
        refuse("is not a configuration", "empty")
        (workplace / "empty" / "config.json").write_text('{"model": "DETRJEPA", "config": {"widht": 3}}')
        refuse("unknown key 'widht'", "empty")
        (workplace / "empty" / "config.json").write_text('{"model": "DETRJEPA", "config": {}}')
        refuse("is damaged", "empty")


class TestFiles:
    def test_missing(self, refuse):
        refuse("no.fits", "--rubin", "no.fits")

    def test_a_folder(self, refuse, workplace):
        (workplace / "folder_i.fits").mkdir()
        refuse("folder_i.fits", "--rubin", "folder_i.fits")

    def test_not_fits(self, refuse, workplace):
        (workplace / "notes_i.fits").write_text("not an image")
        refuse("notes_i.fits.*FITS", "--rubin", "notes_i.fits")
        (workplace / "empty_i.fits").touch()
        refuse("empty_i.fits", "--rubin", "empty_i.fits")

    @pytest.mark.parametrize("fraction", [0.02, 0.3, 0.6])
    def test_truncated(self, fraction, survey_files, refuse, workplace):
        for survey in ("rubin", "euclid"):
            whole = Path(survey_files[survey][0]).read_bytes()
            name = Path(survey_files[survey][0]).name
            (workplace / name).write_bytes(whole[: int(fraction * len(whole))])
            refuse(name, f"--{survey}", name)


class TestImages:
    """What is wrong within a readable file. One survey stands for both where they share the code."""

    def test_no_wcs(self, refuse, workplace):
        refuse("WCS", "--rubin", write_rubin(workplace / "rubin_i.fits", "i", header=fits.Header()))
        refuse("WCS", "--euclid", write_euclid(workplace / "euclid_VIS.fits", "VIS", header=fits.Header()))

    def test_no_overlap(self, refuse, workplace, survey_files):
        away = header(0.1, 96, centre=(SKY[0] + 1, SKY[1]))
        path = write_euclid(workplace / "euclid_VIS.fits", "VIS", header=away)
        refuse("(share no sky|overlap)", "--rubin", *survey_files["rubin"], "--euclid", path)

    def test_bands(self, refuse, workplace, survey_files):
        refuse("band.*'?w'?", "--rubin", write_rubin(workplace / "rubin_w.fits", "w"))
        refuse("twice", "--rubin", survey_files["rubin"][0], survey_files["rubin"][0])
        again = write_rubin(workplace / "rubin_again.fits", "g")
        refuse("twice", "--rubin", survey_files["rubin"][0], again)
        refuse(".*", "--rubin", *survey_files["euclid"])
        refuse(".*", "--euclid", *survey_files["rubin"])

    def test_unit(self, refuse, workplace):
        refuse("unit", "--rubin", write_rubin(workplace / "rubin_i.fits", "i", unit="km/s"))

    def test_pixel_scale(self, refuse, workplace):
        path = write_rubin(workplace / "rubin_i.fits", "i", header=header(20.0, 48))
        refuse("wrong pixel scale of 20 x 20 arcsec", "--rubin", path)

    def test_all_masked(self, refuse, workplace):
        masked = np.full((48, 48), 1, np.int32)
        path = write_rubin(workplace / "rubin_i.fits", "i", mask=masked)
        refuse("every pixel is masked", "--rubin", path)

    def test_all_nan(self, refuse, workplace):
        path = write_euclid(workplace / "euclid_VIS.fits", "VIS", image=np.full((96, 96), np.nan, np.float32))
        refuse("no finite pixel", "--euclid", path)

    @pytest.mark.parametrize("value", [0.0, -4.0, np.nan])
    def test_variance(self, value, refuse, workplace):
        variance = np.full((48, 48), value, np.float32)
        path = write_rubin(workplace / "rubin_i.fits", "i", variance=variance)
        refuse("variance is nowhere positive", "--rubin", path)

    def test_rms_sentinel(self, refuse, workplace):
        path = write_euclid(workplace / "euclid_VIS.fits", "VIS", rms=np.full((96, 96), 1e18, np.float32))
        refuse("variance is nowhere positive", "--euclid", path)

    def test_psf(self, refuse, workplace):
        path = write_rubin(workplace / "rubin_i.fits", "i", psf=psf(0.2, 0.8)[:, :-1])
        refuse("odd number of pixels", "--rubin", path)

    def test_shapes(self, refuse, workplace, survey_files):
        small = np.zeros((40, 40), np.float32)
        parts = {"image": small + 1, "mask": small.astype(np.int32), "variance": small + 4}
        path = write_rubin(workplace / "rubin_i.fits", "i", header=header(0.2, 40), **parts)
        refuse("shape", "--rubin", survey_files["rubin"][0], path)
