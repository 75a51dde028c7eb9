"""FHIR in: resources of an EHR or a device gateway, kept as they were posted."""
