"""Many runs of one file, and their table: `tif sweep`."""
