"""Entry point of ``planner`` and ``python -m planner``."""

__all__ = ["main"]


def main() -> None:
    """Run the command line; exits with one of the codes in :mod:`planner.errors`."""
    from planner.cli import run  # noqa: PLC0415 - an importer of this module must not pay for click

    run()


if __name__ == "__main__":
    main()
