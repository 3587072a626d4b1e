"""Study how far each metric can be trusted, on pools of tiny models."""
