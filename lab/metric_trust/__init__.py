"""How far can each metric be trusted? A study on pools of tiny models."""
