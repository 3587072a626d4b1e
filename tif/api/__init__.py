"""The Python interface: what `import tif` gives to notebooks and scripts.

`tif/__init__.py` lists the names and imports each when it is first used. The functions here turn
their arguments into the words of the commands and call what the commands call: a run that was
started from Python has the same folder, and its config.yaml repeats it on the command line.
"""
