"""What an evaluation leaves behind, and whether two evaluations may be compared."""
