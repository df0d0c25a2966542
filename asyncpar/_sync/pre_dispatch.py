"""Reads `pre_dispatch`: a number of tasks, "all", or arithmetic over n_jobs. It is computed here without `eval`: only numbers,
n_jobs and a few operators are known, and nothing can be called.
"""

from __future__ import annotations

import ast
import operator
import sys
from collections.abc import Callable
from typing import Any

from asyncpar._basics.validation import is_number
from asyncpar._sync.reporting import ALL_WORKERS

_LEFT_TO_ASYNCPAR = "2*n_jobs"  # joblib's default
_MOST_POWER = 64  # in a pre_dispatch expression: no real one is longer, and "9**9**9" would never end
_OPERATORS: dict[type[ast.AST], Callable[..., Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv,
    ast.Mod: operator.mod,
    ast.Pow: operator.pow,
    ast.USub: operator.neg,
    ast.UAdd: operator.pos,
}


def evaluate_pre_dispatch(expression: object, n_jobs: int) -> int | None:
    """How many tasks `pre_dispatch` allows; None: asyncpar chooses.

    Raises:
        ValueError: it is not "all", a positive number, or arithmetic that gives one.
    """
    if isinstance(expression, str):
        if expression.replace(" ", "") == _LEFT_TO_ASYNCPAR:
            return None
        if expression.strip() == "all":
            return sys.maxsize
    elif not is_number(expression):
        raise _not_pre_dispatch(expression)
    try:
        count = int(_compute(expression, n_jobs) if isinstance(expression, str) else expression)
    except (ArithmeticError, SyntaxError, TypeError, ValueError, RecursionError, MemoryError):
        raise _not_pre_dispatch(expression) from None
    if count < 1:
        raise _not_pre_dispatch(expression)
    if n_jobs == ALL_WORKERS and isinstance(expression, str) and "n_jobs" in expression:
        return None  # nobody knows how many they are
    return count


def _not_pre_dispatch(expression: object) -> ValueError:
    return ValueError(
        "pre_dispatch must be 'all', a number of tasks, 1 or more, or arithmetic over n_jobs with + - * / // % ** that gives "
        f"one, such as '2 * n_jobs', not {expression!r}"
    )


def _compute(expression: str, n_jobs: int) -> Any:
    return _evaluate(ast.parse(expression.strip(), mode="eval").body, n_jobs)


def _evaluate(node: ast.expr, n_jobs: int) -> Any:
    if isinstance(node, ast.Constant) and is_number(node.value):
        return node.value
    if isinstance(node, ast.Name) and node.id == "n_jobs":
        return n_jobs
    if isinstance(node, ast.UnaryOp) and type(node.op) in _OPERATORS:
        return _OPERATORS[type(node.op)](_evaluate(node.operand, n_jobs))
    if isinstance(node, ast.BinOp) and type(node.op) in _OPERATORS:
        left, right = _evaluate(node.left, n_jobs), _evaluate(node.right, n_jobs)
        if isinstance(node.op, ast.Pow) and abs(right) > _MOST_POWER:
            raise ValueError("so large a power")
        return _OPERATORS[type(node.op)](left, right)
    raise ValueError("something other than arithmetic")
