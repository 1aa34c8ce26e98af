"""Structs in, text and JSON and commands out: pure, one file per format, nothing here prints or reads a file."""

__all__: list[str] = []
