"""Many runs of one file, and their table: `python -m tif.sweep`."""
