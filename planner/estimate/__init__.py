"""Memory and speed of a candidate: asks the engine for bytes, adds up, and never guesses without an interval."""

__all__: list[str] = []
