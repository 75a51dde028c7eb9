"""Patient-reported measures (PROMs) of ACCESS: known by codes, read, checked, scored by public rules, shaped for CMS.

One file of `tables/` an instrument, `tables/answers.toml` for what an answer counts; identifiers only, no wording.
Source: ACCESS API IG 0.9.12, data reporting; PCO 1.0.0, pco-prom-score-observation; LOINC panels and answer lists.
"""

from mappers.instruments.answers import Administration, Answer, administration
from mappers.instruments.catalogue import Instrument, Item, Score, catalogue, recognise
from mappers.instruments.forms import CmsForm, cms_response, questionnaire, score_observation

__all__ = [
    "Administration",
    "Answer",
    "CmsForm",
    "Instrument",
    "Item",
    "Score",
    "administration",
    "catalogue",
    "cms_response",
    "questionnaire",
    "recognise",
    "score_observation",
]
