# Licensed under a 3-clause BSD style license - see LICENSE
"""The shell around the commands: help, exit codes, and one line for each mistake."""

import logging
import os
import re
import runpy
import signal
import subprocess
import sys
import warnings

import numpy as np
import pytest
from astropy.io import fits

import jaisp
from jaisp.cli import app, main
from jaisp.cli._common import check_file, check_folder, progress_bar, read_images
from jaisp.exceptions import FileError, JaispError, JaispWarning

from .helpers import psf


def run_with(monkeypatch, action):
    """Run the command line with a command that does ``action``."""
    monkeypatch.setattr(app.demo, "run", lambda args: action())
    return main(["demo"])


@pytest.mark.parametrize("argv", [["--help"], ["--version"], ["catalog", "--help"], ["train", "--help"]])
def test_help_and_version(argv, capsys):
    with pytest.raises(SystemExit) as stop:
        main(argv)
    assert stop.value.code == 0
    out, err = capsys.readouterr()
    assert out.startswith(("usage: jaisp", f"jaisp {jaisp.__version__}"))
    assert not err


@pytest.mark.parametrize(
    ("argv", "text"),
    [
        ([], "the following arguments are required: COMMAND"),
        (["catalogue"], "invalid choice: 'catalogue'"),
        (["catalog"], r"required: -o/--output \(see 'jaisp catalog --help'\)"),
        (["catalog", "-o", "a.fits", "--rubn", "x"], "unrecognized arguments: --rubn x"),
        (["catalog", "-o", "a.fits", "--activity", "2"], "'2' is not a number from 0 to below 1"),
        (["catalog", "-o", "a.fits", "--activity", "1"], "'1' is not a number from 0 to below 1"),
        (["catalog", "-o", "a.fits", "--workers", "none"], "'none' is not a whole number of at least 1"),
        (["catalog", "-o", "a.fits", "--device", "gpu"], "invalid choice: 'gpu'"),
        (["simulate", "-o", "a", "--n-tiles", "0"], "'0' is not a whole number of at least 1"),
    ],
)
def test_wrong_arguments(argv, text, capsys):
    assert main(argv) == 2
    assert_one_line(capsys, text)


def assert_one_line(capsys, text):
    out, err = capsys.readouterr()
    assert not out
    assert err.count("\n") == 1
    assert re.match(rf"jaisp: error: .*{text}", err), err


@pytest.mark.parametrize("error", [JaispError("too\nbad"), OSError(28, "No space left on device")])
def test_mistakes_are_one_line(error, monkeypatch, capsys):
    def fail():
        raise error

    assert run_with(monkeypatch, fail) == 2
    assert_one_line(capsys, "(too bad|.*No space left on device)")


@pytest.mark.parametrize(
    ("said", "told"), [("Unable to allocate 9. GiB", r" \(Unable to allocate 9. GiB\)"), ("", "")]
)
def test_too_little_memory_is_one_line(said, told, monkeypatch, capsys):
    def fail():
        raise MemoryError(said)

    assert run_with(monkeypatch, fail) == 2
    assert_one_line(capsys, f"not enough memory{told}; cut the images out first or give fewer bands\n$")


def test_one_file_with_the_psfs_of_all_bands(survey_files, tmp_path):
    widths = {"g": 0.7, "i": 0.9}
    hdus = [fits.ImageHDU(psf(0.2, fwhm), name=f"PSF_{band}") for band, fwhm in widths.items()]
    fits.HDUList([fits.PrimaryHDU(), *hdus]).writeto(tmp_path / "psfs.fits")
    given = ["--rubin", *survey_files["rubin"], "--rubin-psf", str(tmp_path / "psfs.fits")]
    args = app.build_parser().parse_args(["catalog", *given, "-o", "a.fits"])
    image, _ = read_images(args)
    for band, fwhm in widths.items():
        np.testing.assert_allclose(image.psf[band], psf(0.2, fwhm), atol=1e-5)


def test_a_bug_is_not_hidden(monkeypatch):
    def fail():
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        run_with(monkeypatch, fail)


def test_interrupts(monkeypatch, capsys):
    before = signal.getsignal(signal.SIGTERM)

    def interrupt():
        raise KeyboardInterrupt

    assert run_with(monkeypatch, interrupt) == 130
    assert run_with(monkeypatch, lambda: os.kill(os.getpid(), signal.SIGTERM)) == 143
    assert capsys.readouterr().err == "jaisp: interrupted\njaisp: terminated\n"
    assert signal.getsignal(signal.SIGTERM) is before


def test_warnings_are_one_line_each(monkeypatch, capsys):
    def warn():
        for _ in range(3):
            warnings.warn("look\nout", JaispWarning, stacklevel=2)
            warnings.warn("some package's trouble", DeprecationWarning, stacklevel=2)
        logging.getLogger("jaisp.io").info("a detail")
        logging.getLogger("jaisp.io").warning("an event")

    assert run_with(monkeypatch, warn) == 0
    assert capsys.readouterr().err == "jaisp: warning: look out\njaisp: an event\n"
    monkeypatch.setattr(app.demo, "run", lambda args: warn())
    assert main(["demo", "--verbose"]) == 0
    err = capsys.readouterr().err
    assert "some package's trouble" in err
    assert "jaisp: a detail" in err


def test_python_m_jaisp(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["jaisp", "--version"])
    with pytest.raises(SystemExit) as stop:
        runpy.run_module("jaisp", run_name="__main__")
    assert stop.value.code == 0
    assert jaisp.__version__ in capsys.readouterr().out


def test_console_script():
    """The one place where the installed command is run as such."""
    done = subprocess.run(
        [sys.executable, "-m", "jaisp", "catalog", "-o", "nowhere/a.fits", "--rubin", "x.fits"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert done.stderr == (
        "jaisp: error: cannot write 'nowhere/a.fits': folder 'nowhere' does not exist; make it first\n"
    )


class TestOutputs:
    def test_check_file(self, tmp_path, monkeypatch):
        check_file(tmp_path / "a.png", suffixes=(".png",))
        assert not list(tmp_path.iterdir())
        with pytest.raises(
            FileError, match=r"unknown suffix '.pmg' \(did you mean '.png'\?\); allowed: .png"
        ):
            check_file(tmp_path / "a.pmg", suffixes=(".png",))
        with pytest.raises(FileError, match="does not exist; make it first"):
            check_file(tmp_path / "no" / "a.png")
        (tmp_path / "input.fits").touch()
        with pytest.raises(FileError, match="it is an input; choose another name"):
            check_file(tmp_path / "input.fits", inputs=[tmp_path / "gone.fits", tmp_path / "input.fits"])
        with pytest.raises(FileError, match="it is a folder"):
            check_file(tmp_path)

        def refuse(*args, **kwargs):
            raise PermissionError(13, "Permission denied")

        monkeypatch.setattr("tempfile.TemporaryFile", refuse)
        with pytest.raises(FileError, match=r"is not writable \(Permission denied\)"):
            check_file(tmp_path / "a.png")

    def test_check_folder(self, tmp_path):
        check_folder(tmp_path)
        check_folder(tmp_path / "new")
        assert not list(tmp_path.iterdir())
        (tmp_path / "file").touch()
        with pytest.raises(FileError, match="it is a file; give the name of a folder"):
            check_folder(tmp_path / "file")
        with pytest.raises(FileError, match=r"folder '.*no' does not exist"):
            check_folder(tmp_path / "no" / "new")


class TestProgress:
    def test_none_when_piped(self, capsys):
        with progress_bar("tiles", unit="tile") as progress:
            progress(1, 3)
        assert capsys.readouterr().err == ""

    def test_a_bar_on_a_terminal(self, capsys, monkeypatch):
        monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
        with progress_bar("tiles", unit="tile") as progress:
            progress(3, 3, {"loss": 1.0})
        assert "tiles" in capsys.readouterr().err
