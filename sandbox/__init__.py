"""A stand-in for CMS's ACCESS API, over HTTP: for demos and tests. It shares no code with the facade."""
