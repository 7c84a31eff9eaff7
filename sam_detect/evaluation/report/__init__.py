"""The report of evaluations: one page, and CSV files."""

from sam_detect.evaluation.report.page import check_report_folder, write_report
from sam_detect.evaluation.report.tables import comparison_table

__all__ = ["check_report_folder", "comparison_table", "write_report"]
