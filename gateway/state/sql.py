"""What SQLite and PostgreSQL say in different words, under one name each. Nothing else: a query stands with its facts.

Both are asked for the same answer; where one would give another, this says so.
"""

from typing import Any

from sqlalchemy import Integer, Text
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.functions import FunctionElement, ReturnTypeFromArgs


class least(ReturnTypeFromArgs[Any]):  # noqa: N801 - SQL's own name
    """The least of several values, none of which is NULL: with one that is, SQLite says NULL and PostgreSQL leaves it out."""

    inherit_cache = True


class greatest(ReturnTypeFromArgs[Any]):  # noqa: N801
    """The greatest of several values, none of which is NULL."""

    inherit_cache = True


class position(FunctionElement[int]):  # noqa: N801
    """position(wanted, within): where `wanted` begins in a text or in bytes, from 1; 0: nowhere. Upper and lower case differ."""

    type = Integer()
    inherit_cache = True


class json_value(FunctionElement[str]):  # noqa: N801
    """json_value(text, name): what a JSON object has under a name, as text; NULL where it has nothing there."""

    type = Text()
    inherit_cache = True


@compiles(least, "sqlite")
def _least(element: least, compiler: SQLCompiler, **more: Any) -> str:
    return f"min({compiler.process(element.clauses, **more)})"


@compiles(greatest, "sqlite")
def _greatest(element: greatest, compiler: SQLCompiler, **more: Any) -> str:
    return f"max({compiler.process(element.clauses, **more)})"


@compiles(position, "sqlite")
def _instr(element: position, compiler: SQLCompiler, **more: Any) -> str:
    wanted, within = element.clauses
    return f"instr({compiler.process(within, **more)}, {compiler.process(wanted, **more)})"


@compiles(position, "postgresql")
def _position(element: position, compiler: SQLCompiler, **more: Any) -> str:
    wanted, within = element.clauses
    return f"position({compiler.process(wanted, **more)} IN {compiler.process(within, **more)})"


@compiles(json_value, "sqlite")
def _json_extract(element: json_value, compiler: SQLCompiler, **more: Any) -> str:
    text, name = element.clauses
    return f"json_extract({compiler.process(text, **more)}, '$.' || {compiler.process(name, **more)})"


@compiles(json_value, "postgresql")
def _json_text(element: json_value, compiler: SQLCompiler, **more: Any) -> str:
    text, name = element.clauses
    return f"(CAST({compiler.process(text, **more)} AS json) ->> {compiler.process(name, **more)})"
