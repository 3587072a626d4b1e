"""Questions to a model before it is used: is it causal, may its rows be packed."""
