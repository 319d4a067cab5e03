# Licensed under a 3-clause BSD style license - see LICENSE
"""The command line: thin shells around the Python interface, one module for each command."""

from jaisp.cli.app import main

__all__ = ["main"]
