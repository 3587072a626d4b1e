"""The report of runs as one HTML file that needs nothing else, and its pictures for a paper."""
