"""The care-period clock: opens, reminds and closes reporting windows, assembles reports, and draws CMS's consequences.

lifecycle.py    a care period and its reports as rows: begin, end, what is due next
consequences.py CMS's answer to an alignment, an unalignment, a report
deadlines.py    OPEN_WINDOW, REMIND, CLOSE_WINDOW
gather.py       a patient's stored resources as readings
calculated.py   a BMI of height and weight, where nobody sent one
assessment.py   ASSESS: what is missing, what can be built; submit_report: a person sends one
document.py     a report's bytes, checked
alignments.py   the record of how a patient stands on a track; what a person corrects in it
"""

from server.schedule.alignments import corrected, eligibility_result, finished
from server.schedule.assessment import assess, submit_report
from server.schedule.consequences import alignment_result, report_result, unalignment_result
from server.schedule.deadlines import close_window, due, open_window, remind
from server.schedule.lifecycle import end_period, start_period

__all__ = [
    "alignment_result",
    "assess",
    "close_window",
    "corrected",
    "due",
    "eligibility_result",
    "end_period",
    "finished",
    "open_window",
    "remind",
    "report_result",
    "start_period",
    "submit_report",
    "unalignment_result",
]
