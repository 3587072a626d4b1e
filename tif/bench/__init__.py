"""What a step, an evaluation or an identifier costs: `python -m tif.bench`."""
