"""Readers: one image or one report, whatever wrote it, to pixels or text."""
