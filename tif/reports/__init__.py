"""Run folders become tables, HTML reports and model cards."""
