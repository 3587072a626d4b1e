"""Scripts and studies behind docs/results and docs/performance: `python -m lab.NAME` in a checkout.

They import tif, which never imports them; the wheel does not hold them.
"""
