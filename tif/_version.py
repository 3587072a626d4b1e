"""The version, for modules that name it in what they write."""

VERSION = "0.1.0"
