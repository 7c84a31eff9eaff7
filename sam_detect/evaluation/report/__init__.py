"""The report of evaluations: one page to look at, and CSV files beside it."""

from sam_detect.evaluation.report.page import check_report_folder, comparison_table, write_report

__all__ = ["check_report_folder", "comparison_table", "write_report"]
