"""One finding about a resource, a message or a document: what every check and mapper returns."""

from dataclasses import dataclass
from enum import StrEnum


class Severity(StrEnum):
    """FHIR R4 IssueSeverity."""

    FATAL = "fatal"  # nothing could be read
    ERROR = "error"  # refused
    WARNING = "warning"  # accepted, but someone should look
    INFORMATION = "information"  # said for the record


@dataclass(frozen=True, slots=True)
class Issue:
    """A finding, without any value of the input: `text` and `location` never hold PHI.

    Shape: `code` is a FHIR R4 IssueType; `location` is a FHIRPath (FHIR), `OBX[2]-5.1` (HL7 v2) or an XPath (CDA).
    `text` is a whole sentence that names the rule and the remedy.
    """

    severity: Severity
    code: str
    location: str
    text: str

    @property
    def is_error(self) -> bool:
        """Whether the finding refuses the input."""
        return self.severity in (Severity.FATAL, Severity.ERROR)


def error(code: str, location: str, text: str) -> Issue:
    """An error: `code` is a FHIR R4 IssueType."""
    return Issue(Severity.ERROR, code, location, text)


def warning(code: str, location: str, text: str) -> Issue:
    """A warning: `code` is a FHIR R4 IssueType."""
    return Issue(Severity.WARNING, code, location, text)
