"""Text of a config that MMEngine has written, read without executing it."""
import ast
from typing import Any

# Of `ast.parse` and `ast.literal_eval`, for a damaged or crafted text.
_ERRORS = (ValueError, TypeError, SyntaxError, RecursionError, MemoryError)


def parse_config(text: str) -> dict[str, Any]:
    """Return the values of a config by name. Nothing is executed.

    Values are literals, ``dict(key=literal)`` and ``dict({'a.b': literal})``,
    as MMEngine writes them. A value with anything else becomes None, and a
    text that is not Python gives an empty dict.
    """
    try:
        lines = ast.parse(text).body
    except _ERRORS:
        return {}
    return {target.id: _value_of(line.value)
            for line in lines if isinstance(line, ast.Assign)
            for target in line.targets if isinstance(target, ast.Name)}


def _value_of(node: ast.expr) -> Any:
    try:
        return _evaluate(node)
    except _ERRORS:
        return None


def _evaluate(node: ast.expr) -> Any:
    if isinstance(node, (ast.List, ast.Tuple)):
        items = map(_evaluate, node.elts)
        return list(items) if isinstance(node, ast.List) else tuple(items)
    if isinstance(node, ast.Dict):
        return {ast.literal_eval(key): _evaluate(value)  # type: ignore
                for key, value in zip(node.keys, node.values)}
    if isinstance(node, ast.Call):
        if not (isinstance(node.func, ast.Name) and node.func.id == 'dict'
                and all(isinstance(x, ast.Dict) for x in node.args)
                and all(x.arg for x in node.keywords)):
            raise ValueError('a call of something else than dict()')
        found = {x.arg: _evaluate(x.value) for x in node.keywords}
        for argument in node.args:
            found.update(_evaluate(argument))
        return found
    return ast.literal_eval(node)
