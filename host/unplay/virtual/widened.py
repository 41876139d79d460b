"""Device code for a MicroPython whose words have 64 bits: viper there loads words without sign.

On boards a `ptr32` loads a whole machine word, so the sign is right. The x64 port zero-extends it; this
rewrites every load through a ptr32 into one that restores the sign, and `(v << 16) >> 16`, which takes the
sign of a half from a word of 32 bits, into what does so at any width. It touches nothing else.
"""

from __future__ import annotations

import ast


def widened(source: str) -> str:
    """The source with the sign restored after each load from a name that holds a ptr32."""
    tree = ast.parse(source)
    for function in ast.walk(tree):
        if isinstance(function, ast.FunctionDef):
            _Widener(_word_pointers(function)).generic_visit(function)
    return ast.unparse(ast.fix_missing_locations(tree))


def _word_pointers(function: ast.FunctionDef) -> set[str]:
    names = {
        argument.arg
        for argument in function.args.args
        if isinstance(argument.annotation, ast.Name) and argument.annotation.id == "ptr32"
    }
    for node in ast.walk(function):
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Call):
            callee = node.value.func
            if isinstance(callee, ast.Name) and callee.id == "ptr32":
                names |= {target.id for target in node.targets if isinstance(target, ast.Name)}
    return names


class _Widener(ast.NodeTransformer):
    def __init__(self, pointers: set[str]) -> None:
        self.pointers = pointers

    def visit_Subscript(self, node: ast.Subscript) -> ast.AST:
        self.generic_visit(node)
        loads = isinstance(node.ctx, ast.Load)
        if loads and isinstance(node.value, ast.Name) and node.value.id in self.pointers:
            sign = ast.Constant(0x80000000)
            return ast.BinOp(ast.BinOp(node, ast.BitXor(), sign), ast.Sub(), sign)
        return node

    def visit_BinOp(self, node: ast.BinOp) -> ast.AST:
        self.generic_visit(node)
        inner = node.left
        if _shifts(node, ast.RShift) and isinstance(inner, ast.BinOp) and _shifts(inner, ast.LShift):
            half = ast.BinOp(inner.left, ast.BitAnd(), ast.Constant(0xFFFF))
            sign = ast.Constant(0x8000)
            return ast.BinOp(ast.BinOp(half, ast.BitXor(), sign), ast.Sub(), sign)
        return node


def _shifts(node: ast.BinOp, direction: type[ast.operator]) -> bool:
    """Whether the node shifts by 16."""
    right = node.right
    return isinstance(node.op, direction) and isinstance(right, ast.Constant) and right.value == 16
