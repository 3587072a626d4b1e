"""A model and a batch become token scores."""
