"""What a run does beside its training steps, one Lightning callback or logger a file."""
