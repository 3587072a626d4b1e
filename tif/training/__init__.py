"""The Lightning module and data module, what a run plans, prepares, makes and keeps."""
