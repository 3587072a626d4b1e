"""Attacks on unlearned models: can the facts be had back? Of a run, or of three models."""
