"""HL7 v2 (ER7) to US Core and PCO resources, and the acknowledgement that answers it."""

from mappers.hl7v2.acknowledgement import ack_code, acknowledge, acknowledgement_wanted
from mappers.hl7v2.batch import Batch, read, split
from mappers.hl7v2.message import convert

__all__ = ["Batch", "ack_code", "acknowledge", "acknowledgement_wanted", "convert", "read", "split"]
