"""Sections of the document: what an evaluation's tables say, as Markdown and figures."""
