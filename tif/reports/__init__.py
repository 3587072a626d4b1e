"""Run folders become tables, plots and model cards."""
