"""What a step, an evaluation or an identifier costs: `tif bench`."""
