"""Files, processes, the terminal, hashes: what knows nothing of unlearning."""
