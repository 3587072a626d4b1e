"""Questions to a model before it is used: causal, packed rows, length of texts."""
