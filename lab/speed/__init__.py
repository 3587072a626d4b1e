"""What the work costs, against other ways to do it: the measurements of docs/performance.md."""
