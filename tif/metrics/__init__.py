"""Records in, numbers out: pure functions without a model, torch or Lightning."""
