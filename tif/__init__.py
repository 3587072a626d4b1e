"""Targeted Information Forgetting: make a language model forget chosen words without losing the rest."""

__version__ = "0.1.0"
