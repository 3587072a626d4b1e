"""Records in, numbers out: no model, no torch, no Lightning."""
