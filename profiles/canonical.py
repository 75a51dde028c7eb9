"""Every canonical URL, system URI and code that this software names, once.

Sources: FHIR R4 4.0.1; US Core 6.1.0; PCO 1.0.0; CMS ACCESS Model API guide 0.9.12; LOINC and UCUM codes as those
guides use them.
"""

from typing import Final

FHIR_BASE: Final = "http://hl7.org/fhir/StructureDefinition/"
US_CORE_BASE: Final = "http://hl7.org/fhir/us/core/StructureDefinition/"
US_CORE_VERSION: Final = "6.1.0"
PCO_IG: Final = "http://hl7.org/fhir/us/pco"
PCO_VERSION: Final = "1.0.0"
ACCESS_IG: Final = "https://dsacms.github.io/cmmi-access-model"
ACCESS_VERSION: Final = "0.9.12"


def R4(name: str) -> str:
    """The canonical of a base R4 definition, such as `vitalsigns`."""
    return FHIR_BASE + name


def US_CORE(name: str) -> str:
    """The canonical, without version, of a US Core profile, such as `us-core-patient`."""
    return US_CORE_BASE + name


def US_CORE_PINNED(name: str) -> str:
    """The canonical with `|6.1.0`, as ACCESS wants it in `meta.profile`."""
    return f"{US_CORE_BASE}{name}|{US_CORE_VERSION}"


def PCO(name: str) -> str:
    """The canonical of a PCO profile, such as `pco-goal-profile`."""
    return f"{PCO_IG}/StructureDefinition/{name}"


def PCO_CODES(name: str) -> str:
    """The URL of a PCO code system, such as `pco-concepts-temporary`."""
    return f"{PCO_IG}/CodeSystem/{name}"


def ACCESS(name: str) -> str:
    """The canonical of an ACCESS profile, such as `access-align-in`."""
    return f"{ACCESS_IG}/StructureDefinition/{name}"


def ACCESS_CODES(name: str) -> str:
    """The URL of an ACCESS code system, such as `ACCESSTrackCS`."""
    return f"{ACCESS_IG}/CodeSystem/{name}"


def ACCESS_VALUES(name: str) -> str:
    """The URL of an ACCESS value set, such as `ACCESSCKMDiagnosisVS`."""
    return f"{ACCESS_IG}/ValueSet/{name}"


def unversioned(canonical: str) -> str:
    """A canonical without its `|version`."""
    return canonical.partition("|")[0]


# --- ACCESS profiles -----------------------------------------------------------------------------------------------
CHECK_ELIGIBILITY_IN: Final = ACCESS("access-check-eligibility-in")
CHECK_ELIGIBILITY_OUT: Final = ACCESS("access-check-eligibility-out")
ALIGN_IN: Final = ACCESS("access-align-in")
ALIGN_OUT: Final = ACCESS("access-align-out")
UNALIGN_IN: Final = ACCESS("access-unalign-in")
UNALIGN_OUT: Final = ACCESS("access-unalign-out")
REPORT_DATA_IN: Final = ACCESS("access-report-data-in")
REPORT_DATA_OUT: Final = ACCESS("access-report-data-out")
SUBMISSION_STATUS_OUT: Final = ACCESS("access-submission-status-out")
REPORTING_BUNDLE: Final = ACCESS("access-data-reporting-bundle")
REPORTING_COMPOSITION: Final = ACCESS("access-data-reporting-composition")
CLINICAL_EXCLUSION_CONDITION: Final = ACCESS("access-clinical-exclusion-condition")
TRACK_CONDITION: Final = {
    "eCKM": ACCESS("access-eckm-condition"),
    "CKM": ACCESS("access-ckm-condition"),
    "MSK": ACCESS("access-msk-condition"),
    "BH": ACCESS("access-bh-condition"),
}
TRACK_DIAGNOSES: Final = {track: ACCESS_VALUES(f"ACCESS{track}DiagnosisVS") for track in TRACK_CONDITION}
TRACK_EXCLUSIONS: Final = {
    track: ACCESS_VALUES(f"ACCESS{track.removeprefix('e')}ClinicalExclusionDiagnosisVS") for track in TRACK_CONDITION
}

# --- ACCESS code systems -------------------------------------------------------------------------------------------
TRACK: Final = ACCESS_CODES("ACCESSTrackCS")
REPORT_TYPE: Final = ACCESS_CODES("ACCESSReportTypeCS")
UNALIGNMENT_REASON: Final = ACCESS_CODES("ACCESSUnalignmentReasonCS")
ELIGIBILITY_RESULT: Final = ACCESS_CODES("ACCESSEligibilityResultCS")
ALIGNMENT_RESULT: Final = ACCESS_CODES("ACCESSAlignmentResultCS")
UNALIGNMENT_RESULT: Final = ACCESS_CODES("ACCESSUnalignmentResultCS")
REPORT_DATA_RESULT: Final = ACCESS_CODES("ACCESSReportDataResultCS")
REPORT_SECTION: Final = ACCESS_CODES("ACCESSReportDataCompositionSectionCS")
EVENT_TYPE: Final = ACCESS_CODES("ACCESSEventTypeCS")

# --- Identifiers ---------------------------------------------------------------------------------------------------
PARTICIPANT_ID: Final = f"{ACCESS_IG}/participant-id"
PARTICIPANT_ID_PATTERN: Final = r"^ACCES\d{5}$"
PAYER_ID: Final = "urn:oid:2.16.840.1.113883.3.221.5"
PAYER_ID_TYPE: Final = "http://hl7.org/fhir/us/carin-bb/CodeSystem/C4BBIdentifierType"
PAYER_ID_TYPE_CODE: Final = "payerid"
MBI: Final = "http://terminology.hl7.org/NamingSystem/cmsMBI"
MBI_TYPE_CODE: Final = "MC"  # in IDENTIFIER_TYPE
MBI_PATTERN: Final = (
    "^[1-9][AC-HJKMNP-RT-Y][0-9AC-HJKMNP-RT-Y][0-9][AC-HJKMNP-RT-Y][0-9AC-HJKMNP-RT-Y][0-9][AC-HJKMNP-RT-Y]{2}[0-9]{2}$"
)
NPI: Final = "http://hl7.org/fhir/sid/us-npi"
SSN: Final = "http://hl7.org/fhir/sid/us-ssn"
IDENTIFIER_TYPE: Final = "http://terminology.hl7.org/CodeSystem/v2-0203"
UUID_SYSTEM: Final = "urn:ietf:rfc:3986"

# --- Terminologies -------------------------------------------------------------------------------------------------
LOINC: Final = "http://loinc.org"
UCUM: Final = "http://unitsofmeasure.org"
SNOMED: Final = "http://snomed.info/sct"
REFERRAL_TYPE: Final = "http://terminology.hl7.org/CodeSystem/v2-0281"
REFERRAL_CATEGORY: Final = "http://terminology.hl7.org/CodeSystem/v2-0284"
ICD10CM: Final = "http://hl7.org/fhir/sid/icd-10-cm"
RXNORM: Final = "http://www.nlm.nih.gov/research/umls/rxnorm"
CPT: Final = "http://www.ama-assn.org/go/cpt"
CVX: Final = "http://hl7.org/fhir/sid/cvx"
NDC: Final = "http://hl7.org/fhir/sid/ndc"
CDC_RACE: Final = "urn:oid:2.16.840.1.113883.6.238"
LANGUAGE: Final = "urn:ietf:bcp:47"

OBSERVATION_CATEGORY: Final = "http://terminology.hl7.org/CodeSystem/observation-category"
US_CORE_CATEGORY: Final = "http://hl7.org/fhir/us/core/CodeSystem/us-core-category"
CONDITION_CATEGORY: Final = "http://terminology.hl7.org/CodeSystem/condition-category"
CONDITION_CLINICAL: Final = "http://terminology.hl7.org/CodeSystem/condition-clinical"
CONDITION_VERIFICATION: Final = "http://terminology.hl7.org/CodeSystem/condition-ver-status"
PROBLEM_LIST_ITEM: Final = "problem-list-item"
DIAGNOSTIC_SERVICE: Final = "http://terminology.hl7.org/CodeSystem/v2-0074"
OBSERVATION_INTERPRETATION: Final = "http://terminology.hl7.org/CodeSystem/v3-ObservationInterpretation"
ACT_CODE: Final = "http://terminology.hl7.org/CodeSystem/v3-ActCode"
NULL_FLAVOR: Final = "http://terminology.hl7.org/CodeSystem/v3-NullFlavor"
DATA_ABSENT_REASON: Final = "http://terminology.hl7.org/CodeSystem/data-absent-reason"
PROVENANCE_PARTICIPANT: Final = "http://terminology.hl7.org/CodeSystem/provenance-participant-type"
US_CORE_PROVENANCE_PARTICIPANT: Final = "http://hl7.org/fhir/us/core/CodeSystem/us-core-provenance-participant-type"
DATA_OPERATION: Final = "http://terminology.hl7.org/CodeSystem/v3-DataOperation"
CARE_PLAN_CATEGORY: Final = "http://hl7.org/fhir/us/core/CodeSystem/careplan-category"
GOAL_ACHIEVEMENT: Final = "http://terminology.hl7.org/CodeSystem/goal-achievement"
SERVICE_TYPE: Final = "http://terminology.hl7.org/CodeSystem/service-type"
LIST_ORDER: Final = "http://terminology.hl7.org/CodeSystem/list-order"

PCO_CONCEPTS: Final = PCO_CODES("pco-concepts-temporary")
PCO_GOAL_DOMAINS: Final = PCO_CODES("pco-goal-domains-temporary")
PCO_READINESS: Final = PCO_CODES("readiness-assessment-concepts-temporary")
PCO_WHAT_MATTERS: Final = PCO_CODES("what-matters-concepts-temporary")
PCO_HEALTH_INVENTORY: Final = PCO_CODES("personal-health-inventory-temporary")

# --- Extensions ----------------------------------------------------------------------------------------------------
ORDINAL_VALUE: Final = FHIR_BASE + "ordinalValue"
DATA_ABSENT_REASON_EXTENSION: Final = FHIR_BASE + "data-absent-reason"
US_CORE_RACE: Final = US_CORE_BASE + "us-core-race"
US_CORE_ETHNICITY: Final = US_CORE_BASE + "us-core-ethnicity"
US_CORE_BIRTHSEX: Final = US_CORE_BASE + "us-core-birthsex"
PCO_GOAL_ATTAINMENT: Final = PCO("pco-goal-attainment-scaling")

# --- LOINC codes ---------------------------------------------------------------------------------------------------
BLOOD_PRESSURE: Final = "85354-9"
SYSTOLIC: Final = "8480-6"
DIASTOLIC: Final = "8462-4"
BODY_WEIGHT: Final = "29463-7"
BODY_HEIGHT: Final = "8302-2"
BMI: Final = "39156-5"
WAIST: Final = "8280-0"
HBA1C: Final = "4548-4"
EGFR: Final = "98979-8"
UACR: Final = "14959-1"
LDL: Final = "18262-6"
LDL_CALCULATED: Final = "13457-7"
HDL: Final = "2085-9"
CHOLESTEROL: Final = "2093-3"
TRIGLYCERIDES: Final = "2571-8"
PHQ9: Final = "44249-1"
PHQ9_TOTAL: Final = "44261-6"
GAD7: Final = "69737-5"
GAD7_TOTAL: Final = "70274-6"
ODI: Final = "97908-8"
ODI_SCORE: Final = "97909-6"
NDI: Final = "82226-2"
NDI_TOTAL: Final = "82237-9"
KOOS_JR: Final = "82324-5"
KOOS_JR_SCORE: Final = "82332-8"
HOOS_JR: Final = "82316-1"
HOOS_JR_SCORE: Final = "82323-7"
PROMIS_PF_6B: Final = "76804-4"
PROMIS_PF_CAT: Final = "91722-9"
PROMIS_PI_6A: Final = "90973-9"
PROMIS_PI_CAT: Final = "89923-7"
PROMIS_NRS: Final = "72514-3"
QUESTIONNAIRE_DOCUMENT: Final = "74465-6"  # Composition.type of the report examples
LIPID_PANEL: Final = "24331-1"
GAS_SCORE: Final = "107332-9"
PREFERENCES_LIST: Final = "81340-2"  # Code of the personal priorities List

# --- UCUM codes ----------------------------------------------------------------------------------------------------
MM_HG: Final = "mm[Hg]"
KILOGRAM: Final = "kg"
KILOGRAM_PER_SQUARE_METRE: Final = "kg/m2"
CENTIMETRE: Final = "cm"
PERCENT: Final = "%"
ML_PER_MIN_PER_1_73_M2: Final = "mL/min/{1.73_m2}"
MILLIGRAM_PER_GRAM: Final = "mg/g"
MILLIGRAM_PER_DECILITRE: Final = "mg/dL"
UNITY: Final = "1"
MEASURE_UNIT: Final = {
    BODY_WEIGHT: KILOGRAM,
    BMI: KILOGRAM_PER_SQUARE_METRE,
    WAIST: CENTIMETRE,
    HBA1C: PERCENT,
    EGFR: ML_PER_MIN_PER_1_73_M2,
    UACR: MILLIGRAM_PER_GRAM,
    LDL: MILLIGRAM_PER_DECILITRE,
    HDL: MILLIGRAM_PER_DECILITRE,
    CHOLESTEROL: MILLIGRAM_PER_DECILITRE,
    TRIGLYCERIDES: MILLIGRAM_PER_DECILITRE,
    SYSTOLIC: MM_HG,
    DIASTOLIC: MM_HG,
}
