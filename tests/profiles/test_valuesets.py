"""Value sets: enumerations, ICD-10-CM roots, and None for what is not known."""

import pytest

from profiles import library
from profiles.canonical import ACCESS_VALUES, ICD10CM, TRACK, TRACK_DIAGNOSES, TRACK_EXCLUSIONS
from profiles.valuesets import contains

SIZES = {"eCKM": 45, "CKM": 688, "MSK": 2495, "BH": 69}


@pytest.mark.parametrize(("track", "size"), SIZES.items())
def test_the_diagnosis_lists_are_whole(track: str, size: int) -> None:
    """The four lists of 0.9.12 hold 45, 688, 2495 and 69 codes."""
    (include,) = library.guide_value_sets()[TRACK_DIAGNOSES[track]]["compose"]["include"]
    assert len({concept["code"] for concept in include["concept"]}) == size


def test_no_qualifying_diagnosis_excludes() -> None:
    """No code of a track's list is in the exclusion list of the same track."""
    for track, url in TRACK_DIAGNOSES.items():
        (include,) = library.guide_value_sets()[url]["compose"]["include"]
        for concept in include["concept"]:
            assert contains(TRACK_EXCLUSIONS[track], ICD10CM, concept["code"]) is False


@pytest.mark.parametrize(
    ("name", "system", "code", "expected"),
    [
        ("ACCESSCKMDiagnosisVS", ICD10CM, "E11.9", True),
        ("ACCESSCKMDiagnosisVS", ICD10CM, "E11", False),  # complete codes only
        ("ACCESSCKMDiagnosisVS", "http://example.org", "E11.9", False),
        ("ACCESSCKMDiagnosisVS|0.9.12", ICD10CM, "E11.9", True),
        ("ACCESSTrackVS", TRACK, "eCKM", True),
        ("ACCESSTrackVS", TRACK, "eckm", False),
        ("ACCESSCKMClinicalExclusionDiagnosisVS", ICD10CM, "N18.6", True),
        ("ACCESSMSKClinicalExclusionDiagnosisVS", ICD10CM, "N18.6", False),
        ("ACCESSMSKClinicalExclusionDiagnosisVS", ICD10CM, "M05.79", True),  # beneath the root M05
        ("ACCESSBHClinicalExclusionDiagnosisVS", ICD10CM, "F01.50", True),
        ("ACCESSBHClinicalExclusionDiagnosisVS", ICD10CM, "F0", False),
        ("NoSuchVS", ICD10CM, "E11.9", None),
    ],
)
def test_membership(name: str, system: str, code: str, expected: bool | None) -> None:
    """A code is in, out, or the list is unknown."""
    assert contains(ACCESS_VALUES(name), system, code) is expected


def test_base_lists_are_known() -> None:
    """Required lists of base R4 can be asked for too."""
    url = "http://hl7.org/fhir/ValueSet/observation-status"
    assert contains(url, "http://hl7.org/fhir/observation-status", "final") is True
    assert contains(url, "http://hl7.org/fhir/observation-status", "finished") is False
