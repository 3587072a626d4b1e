"""One attack a file. Each registers itself, with its keys, by `tif.audit.attack.attack`.

The importing of all files of this folder is what makes them known: see `tif.config.registry`.
"""
