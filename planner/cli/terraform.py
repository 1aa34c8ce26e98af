"""Options that come as a query on stdin, as Terraform's external data source sends them.

The mistake it prevents: a second grammar for the same options. A query is turned into the words of the command line and
read by the command itself, so whatever is refused there is refused here, in the same words.
"""

import json
import sys
from typing import Any

import click
from click.core import ParameterSource

from planner.errors import BadInputError

__all__ = ["QueriedCommand", "query_words"]

_MOST_BYTES = 1 << 20
_NOT_ASKED = frozenset({"help", "as_json", "output_file", "protocol"})
"""What belongs to the caller of the program and not to the query."""
_YES, _NO = ("true", "1"), ("false", "0")


class QueriedCommand(click.Command):
    """A command that, with ``--protocol``, takes further options from a query on stdin; those of the query win."""

    def invoke(self, ctx: click.Context) -> Any:  # noqa: ANN401 - click's signature
        """Run the command with the options of the words and of the query."""
        if ctx.params.get("protocol") is None:
            return super().invoke(ctx)
        words = query_words(self, sys.stdin.buffer.read(_MOST_BYTES + 1))
        with self.make_context(ctx.info_name, words, parent=ctx.parent) as queried:
            for name, value in ctx.params.items():
                if queried.get_parameter_source(name) is not ParameterSource.COMMANDLINE:
                    queried.params[name] = value
            return super().invoke(queried)


def query_words(command: click.Command, data: bytes) -> list[str]:
    """The words that a query stands for: a JSON object of strings, its keys the options' names without hyphens.

    An option that may be given again takes a list with commas, a switch ``true`` or ``false``; an empty string counts
    as not asked. Raises :class:`BadInputError` for anything else.
    """
    options = {
        _key(option): option
        for option in command.params
        if isinstance(option, click.Option) and option.name not in _NOT_ASKED
    }
    words: list[str] = []
    for key, value in _query(data).items():
        option = options.get(key.replace("-", "_"))
        if option is None:
            raise BadInputError(
                f"the query on stdin has the key {key!r}", hint=f"known are {', '.join(options)}", code="bad-query"
            )
        words += _words(option, key, value)
    return words


def _query(data: bytes) -> dict[str, str]:
    if len(data) > _MOST_BYTES:
        raise BadInputError(f"the query on stdin is longer than {_MOST_BYTES >> 20} MiB", code="bad-query")
    hint = 'Terraform sends {"model": "qwen3-8b"} or {}'
    try:
        query = json.loads(data.decode("utf-8"), object_pairs_hook=_once)
    except (ValueError, RecursionError) as error:
        raise BadInputError(f"the query on stdin is no JSON: {error}", hint=hint, code="bad-query") from error
    if not isinstance(query, dict):
        raise BadInputError("the query on stdin is no JSON object", hint=hint, code="bad-query")
    for key, value in query.items():
        if not isinstance(value, str):
            raise BadInputError(f"the query's {key!r} is no string", hint='quote it: "8192"', code="bad-query")
        if not value.isprintable():
            # What no command line could hold; a half of a surrogate pair is not printable either.
            raise BadInputError(f"the query's {key!r} holds a control character", code="bad-query")
    return query


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a key stands in it twice")
    return found


def _words(option: click.Option, key: str, value: str) -> list[str]:
    flag = option.opts[0]
    if value == "":
        return []
    if option.is_flag:
        if value not in (*_YES, *_NO):
            raise BadInputError(f"the query's {key!r} is {value!r}", hint="write true or false", code="bad-query")
        return [flag] if value in _YES else []
    # One word, so that no value is ever taken for an option.
    return [f"{flag}={each.strip()}" for each in (value.split(",") if option.multiple else (value,))]


def _key(option: click.Option) -> str:
    return option.opts[0].lstrip("-").replace("-", "_")
