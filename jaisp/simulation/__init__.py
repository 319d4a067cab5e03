# Licensed under a 3-clause BSD style license - see LICENSE
"""Simulated skies: a population of sources, fast training scenes, and paired fields drawn with GalSim."""

from jaisp.simulation.draw import NoiseBank, draw_tile
from jaisp.simulation.fields import DEPTHS, simulate_field
from jaisp.simulation.files import simulate, write_euclid, write_rubin
from jaisp.simulation.population import Sources, draw_sources
from jaisp.simulation.psfs import PSFLibrary
from jaisp.simulation.scenes import Scene, SceneBank, SceneConfig, make_scene, make_scenes, render_scene

__all__ = [
    "DEPTHS",
    "NoiseBank",
    "PSFLibrary",
    "Scene",
    "SceneBank",
    "SceneConfig",
    "Sources",
    "draw_sources",
    "draw_tile",
    "make_scene",
    "make_scenes",
    "render_scene",
    "simulate",
    "simulate_field",
    "write_euclid",
    "write_rubin",
]
