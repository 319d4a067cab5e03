# Licensed under a 3-clause BSD style license - see LICENSE
"""A catalogue as one self-contained page for the browser."""

from jaisp.report.page import make_report, write_report

__all__ = ["make_report", "write_report"]
