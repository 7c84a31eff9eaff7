"""What somebody without a detector does today, run in the same evaluation as the detector."""

from sam_detect.evaluation.baselines.template import TemplateMatching
from sam_detect.evaluation.baselines.watershed import OtsuWatershed

__all__ = ["OtsuWatershed", "TemplateMatching"]
