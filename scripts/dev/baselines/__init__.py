"""What is done without a detector today, as methods of the same evaluation.

sam-detect evaluate nuts/ --method scripts.dev.baselines:OtsuWatershed
"""

from scripts.dev.baselines.template import TemplateMatching
from scripts.dev.baselines.watershed import OtsuWatershed

__all__ = ["OtsuWatershed", "TemplateMatching"]
