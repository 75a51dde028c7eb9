"""Procedures that took place -> Procedure; a procedure observation with a value is an Observation.

Source: C-CDA on FHIR 2.0.0, CF-procedures; US Core 6.1.0, us-core-procedure.
"""

from mappers.cda import dialect
from mappers.cda.claims import claim
from mappers.cda.context import Document
from mappers.cda.datatypes import text
from mappers.cda.node import Node
from mappers.cda.people import performers
from mappers.cda.problems import record


def procedure(node: Node, document: Document) -> str | None:
    """procedure 4.14, act 4.12 -> Procedure."""
    resource, kept = dialect.apply("procedure", node, document=document, kind="Procedure")
    if "code" not in resource and "text" in kept and (told := text(kept["text"][0], document)):
        resource["code"] = {"text": told}
    if "code" not in resource:
        document.leave(node, "bad", reason="The procedure has neither code nor text.")
        return None
    if node.get("negationInd") == "true":
        resource["status"] = "not-done"
    resource.setdefault("status", "unknown")
    resource["subject"] = document.subject
    record(resource, kept, act=None, document=document)
    people = performers(kept, document)
    if people:
        resource["performer"] = [{"actor": one} for one in people]
    claim(resource, "us-core-procedure")
    return document.add(resource, node)
