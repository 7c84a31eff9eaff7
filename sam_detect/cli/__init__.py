"""The command line. ``main`` is what the ``sam-detect`` command runs."""

from sam_detect.cli.app import main as main
