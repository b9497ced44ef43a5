"""Aligns language models with human and AI feedback."""
