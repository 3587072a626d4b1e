"""The identifier that asks an LLM behind an OpenAI-compatible endpoint."""
