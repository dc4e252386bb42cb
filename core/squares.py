"""Squares: four by four numbers turned over in a processor's registers.

Owns how ``core.lanes.turn`` becomes machine code: four vector loads, eight shuffles, four stores,
where a loop would move sixteen numbers one by one. Knows neither lanes nor what the numbers mean.
"""

from collections.abc import Sequence
from typing import Any

SIDE = 4
WIDE = ("float64",)
# Of two vectors beside each other, numbers 0 … 7: how a new one is made.
_EVEN, _ODD = (0, 4, 2, 6), (1, 5, 3, 7)
_FRONT, _BACK = (0, 1, 4, 5), (2, 3, 6, 7)


def turn() -> Any:
    """Return what numba calls: ``(source, a, b, c, d, made, first, distance)``.

    Reads four numbers each at places ``a`` to ``d`` of ``source``; writes the first of each side
    by side at place ``first`` of ``made``, the second ones ``distance`` behind, and so on. Places
    count numbers of a C-contiguous array from its beginning; nothing checks them. ``made`` may be
    float32, where numbers are rounded to.
    """
    from numba import types
    from numba.core.errors import TypingError
    from numba.extending import intrinsic

    @intrinsic
    def turned(
        typing: Any, source: Any, a: Any, b: Any, c: Any, d: Any, made: Any, first: Any, far: Any
    ) -> Any:
        for array, kinds in ((source, WIDE), (made, (*WIDE, "float32"))):
            if array.layout != "C" or str(array.dtype) not in kinds:
                raise TypingError(f"{array}: expected a C-contiguous array of {kinds}")
        place = types.intp
        signature = types.void(source, *[place] * 4, made, place, place)
        return signature, _written

    return turned


def _written(context: Any, builder: Any, signature: Any, arguments: Any) -> None:
    from llvmlite import ir

    source, *places, made, first, distance = arguments
    read = context.make_array(signature.args[0])(context, builder, source).data
    write = context.make_array(signature.args[5])(context, builder, made).data
    vector = ir.VectorType(ir.DoubleType(), SIDE)
    narrow = str(signature.args[5].dtype) == "float32"
    written = ir.VectorType(ir.FloatType(), SIDE) if narrow else vector
    order = ir.VectorType(ir.IntType(32), SIDE)

    def at(start: Any, place: Any, kind: Any) -> Any:
        return builder.bitcast(builder.gep(start, [place]), kind.as_pointer())

    def shuffled(pair: Sequence[Any], way: Sequence[int]) -> Any:
        return builder.shuffle_vector(*pair, ir.Constant(order, way))

    rows: list[Any] = []
    for place in places:
        rows.append(builder.load(at(read, place, vector)))
        rows[-1].align = 8
    above, below = rows[:2], rows[2:]
    halves = [(shuffled(above, way), shuffled(below, way)) for way in (_EVEN, _ODD)]
    columns = [shuffled(pair, way) for way in (_FRONT, _BACK) for pair in halves]
    for number, column in enumerate(columns):
        column = builder.fptrunc(column, written) if narrow else column
        builder.store(column, at(write, first, written)).align = 4 if narrow else 8
        if number < SIDE - 1:
            first = builder.add(first, distance)
