"""What a step of training costs on this machine, and the memory that a model needs: `tif bench`."""
