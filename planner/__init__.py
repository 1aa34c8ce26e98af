"""planner says, truthfully, which Qwen or DeepSeek model runs best on the machine in front of you."""

__all__ = ["__version__"]

__version__ = "0.1.0"
