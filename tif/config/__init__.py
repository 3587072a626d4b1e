"""Every key with its meaning; files and overrides become one checked configuration."""
