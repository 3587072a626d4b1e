"""The identifier `generative`: it asks an LLM behind an OpenAI-compatible endpoint."""

from tif.identifiers.generative import identify as identify
