"""A matrix product in the registers of the CPU: the one piece of the attention kernels that LLVM needs told how.

Numba's loops reach a third of what the processor can do, because LLVM keeps no block of sums in registers across a loop
over arrays it cannot prove apart. `add_tile` says so outright, in vectors as wide as this machine's.
"""

from typing import Any

from llvmlite import binding, ir
from numba import config, types
from numba.core import cgutils
from numba.extending import intrinsic

from ..workspace import kernel


def _lanes() -> int:
    """Floats in a vector register of the processor that numba compiles for."""
    chosen = getattr(config, "CPU_FEATURES", None)  # by the environment; else those of this machine
    known = (binding.get_host_cpu_features().flatten() if chosen is None else chosen).split(",")
    return 16 if "+avx512f" in known else 8 if "+avx" in known else 4


LANES = _lanes()
# The sums must fit in the registers beside a row of B: 16 of 32 (AVX-512), 8 of 16 (AVX).
TILE_ROWS = 8 if LANES == 16 else 4
_VECTORS = 2
TILE_COLUMNS = _VECTORS * LANES


def _type_tile(
    _typing: Any, a: Any, a_row: Any, a_step: Any, b: Any, b_row: Any, c: Any, c_row: Any, depth: Any
) -> Any:
    """`c[r, j] += sum over k < depth of a[r, k] * b[k, j]`, for TILE_ROWS rows and TILE_COLUMNS columns.

    a, b, c are addresses of float32; `a_row`, `b_row`, `c_row` floats from a row to the next, `a_step` from a[r, k] to
    a[r, k + 1], so that A may lie transposed. `depth` is at least 1.
    """
    return types.void(*(types.intp,) * 8), _emit_tile


add_tile: Any = intrinsic(_type_tile)


def _emit_tile(context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
    a, a_row, a_step, b, b_row, c, c_row, depth = arguments
    number, index = ir.FloatType(), ir.IntType(64)
    vector = ir.VectorType(number, LANES)
    fused = cgutils.get_or_insert_function(
        builder.module, ir.FunctionType(vector, [vector] * 3), f"llvm.fmuladd.v{LANES}f32"
    )
    a, b, c = (builder.inttoptr(address, number.as_pointer()) for address in (a, b, c))

    def at(base: Any, offset: Any) -> Any:
        return builder.bitcast(builder.gep(base, [offset]), vector.as_pointer())

    def load(base: Any, offset: Any) -> Any:
        value = builder.load(at(base, offset))
        value.align = 4
        return value

    def times(stride: Any, count: int) -> Any:
        return builder.mul(stride, ir.Constant(index, count))

    places = [
        [builder.add(times(c_row, row), ir.Constant(index, part * LANES)) for part in range(_VECTORS)]
        for row in range(TILE_ROWS)
    ]
    before = builder.block
    starts = [[load(c, place) for place in row] for row in places]
    loop, after = builder.append_basic_block("tile.loop"), builder.append_basic_block("tile.after")
    builder.branch(loop)

    builder.position_at_end(loop)
    step = builder.phi(index)
    step.add_incoming(ir.Constant(index, 0), before)
    sums = [[builder.phi(vector) for _ in row] for row in starts]
    b_at, a_at = builder.mul(step, b_row), builder.mul(step, a_step)
    parts = [load(b, builder.add(b_at, ir.Constant(index, part * LANES))) for part in range(_VECTORS)]
    unset = ir.Constant(vector, ir.Undefined)
    first_lane = ir.Constant(ir.VectorType(ir.IntType(32), LANES), [0] * LANES)
    results = []
    for row in range(TILE_ROWS):
        factor = builder.load(builder.gep(a, [builder.add(a_at, times(a_row, row))]))
        single = builder.insert_element(unset, factor, ir.Constant(ir.IntType(32), 0))
        spread = builder.shuffle_vector(single, unset, first_lane)
        results.append([builder.call(fused, [spread, part, sums[row][i]]) for i, part in enumerate(parts)])
    following = builder.add(step, ir.Constant(index, 1))
    step.add_incoming(following, loop)
    for row in range(TILE_ROWS):
        for i in range(_VECTORS):
            sums[row][i].add_incoming(starts[row][i], before)
            sums[row][i].add_incoming(results[row][i], loop)
    builder.cbranch(builder.icmp_signed("<", following, depth), loop, after)

    builder.position_at_end(after)
    for row in range(TILE_ROWS):
        for i in range(_VECTORS):
            builder.store(results[row][i], at(c, places[row][i])).align = 4
    return context.get_dummy_value()


@kernel
def add_product(a, a_row, a_step, b, b_row, c, c_row, rows, columns, depth):
    """`C += A @ B` for C (rows, columns), which are multiples of the tile's; strides as in `add_tile`."""
    for column in range(0, columns, TILE_COLUMNS):
        for row in range(0, rows, TILE_ROWS):
            add_tile(
                a + 4 * row * a_row, a_row, a_step, b + 4 * column, b_row, c + 4 * (row * c_row + column), c_row, depth
            )
