"""A model and samples become records."""
