"""Tools of those who develop sam-detect: measurements, baselines, drawn scenes. Not in the wheel.

The commands are the files of ``scripts/``. They run modules of this package from the root of the
checkout, as tests import it: ``scripts.dev``.
"""
