"""Attention on the CPU, one head at a time: scores, softmax and gradients of a block of queries stay in cache.

Each query sees a run of keys that ends at itself and starts at a slot of its own: causal attention, documents packed
into a row and sliding windows are all that, and keys nobody sees are never touched. Every head is one thread's work
from beginning to end, so the number of threads changes no bit of the result.
"""

import numpy as np

from ..workspace import kernel, relaxed_kernel
from .tiles import TILE_COLUMNS, add_product

BLOCK = 32  # queries computed together
_LOG2_E = np.float32(1.4426950408889634)
_LN2_HIGH, _LN2_LOW = (
    np.float32(0.693359375),
    np.float32(-2.12194440e-4),
)  # their sum is ln 2; the first times n is exact
_LEAST = np.float32(-87.0)  # exp of it is the smallest normal float32

# Sums may be taken in any order here, which lets LLVM take 16 at a time; NaN stays NaN.
_summing = relaxed_kernel("contract", "reassoc", "nsz")
# The maximum of numbers and NaNs is some number or NaN; the exponentials bring every NaN back.
_comparing = relaxed_kernel("nnan", "nsz", "reassoc")


@_comparing
def _highest(row):
    result = row[0]
    for slot in range(len(row)):
        result = max(result, row[slot])
    return result


@_summing
def _sum(row):
    total = np.float32(0)
    for slot in range(len(row)):
        total += row[slot]
    return total


@_summing
def _dot(x, y):
    total = np.float32(0)
    for i in range(len(x)):
        total += x[i] * y[i]
    return total


@_summing
def _exponentials(row, shift, bits, powers):
    """`row = exp(row - shift)`, to 2e-7; `powers` are `bits` seen as float32.

    exp(x) = 2^n * exp(f) with |f| <= ln(2) / 2, exp(f) by its series to the sixth power.
    """
    for slot in range(len(row)):
        x = row[slot] - shift
        x = _LEAST if x < _LEAST else x
        n = np.int32(x * _LOG2_E - np.float32(0.5))
        whole = np.float32(n)
        f = x - whole * _LN2_HIGH - whole * _LN2_LOW
        series = np.float32(1 / 720)
        series = series * f + np.float32(1 / 120)
        series = series * f + np.float32(1 / 24)
        series = series * f + np.float32(1 / 6)
        series = series * f + np.float32(1 / 2)
        series = series * f + np.float32(1)
        row[slot] = series * f + np.float32(1)
        bits[slot] = (n + np.int32(127)) << np.int32(23)
    for slot in range(len(row)):
        row[slot] *= powers[slot]


@kernel
def _weigh(row, scale, slope):
    """Scores from products: scaled, and lowered by ALiBi's slope for each token of distance from the last."""
    last = np.int32(len(row) - 1)
    for slot in range(len(row)):
        row[slot] = row[slot] * scale - slope * np.float32(last - np.int32(slot))


@kernel
def _clear(row):
    for column in range(len(row)):
        row[column] = 0


@kernel
def _products_with_keys(x, x_row, panels, depth, low, columns, block, block_address):
    """`block = x @ keys.T` for BLOCK rows at address `x` and the keys from slot `low` on, which lie in panels."""
    for row in range(BLOCK):
        _clear(block[row, :columns])
    panel_bytes = 4 * depth * TILE_COLUMNS
    for column in range(0, columns, TILE_COLUMNS):
        add_product(
            x,
            x_row,
            1,
            panels + (low + column) // TILE_COLUMNS * panel_bytes,
            TILE_COLUMNS,
            block_address + 4 * column,
            block.shape[1],
            BLOCK,
            TILE_COLUMNS,
            depth,
        )


@kernel
def attend_heads(
    start, end, heads, groups, queries, strides, panels, values, firsts, slopes, scale, out, sums, block, bits, powers
):
    """Attention of the heads numbered `start` to `end` over all rows of a batch: (row, head) in one count.

    Args:
        groups: query heads that share a key head.
        queries, values: (B, L, heads or key heads, D), whose rows' and heads' `strides` in floats are given below.
        panels: (B, key heads, L / TILE_COLUMNS, D, TILE_COLUMNS), the keys.
        firsts: (B or 1, L) the first slot each query sees. They never fall along a row.
        slopes: (heads) of ALiBi, or zeros.
        out: (B, L, heads, D) contiguous; sums: (B, heads, L), the logarithm of each query's sum of exponentials.
        block: (BLOCK, L + padding) room for scores; bits, powers: the same memory as int32 and float32.
    """
    length, depth = out.shape[1], out.shape[3]
    key_heads = heads // groups
    address, block_address = out.ctypes.data, block.ctypes.data
    for item in range(start, end):
        batch, head = item // heads, item % heads
        key_head = head // groups
        of_row = batch % firsts.shape[0]
        q = queries + 4 * (batch * strides[0] + head * strides[2])
        v = values + 4 * (batch * strides[3] + key_head * strides[5])
        k = panels + 4 * (batch * key_heads + key_head) * length * depth
        o = address + 4 * (batch * length * heads + head) * depth
        for query in range(0, length, BLOCK):
            low = firsts[of_row, query] // TILE_COLUMNS * TILE_COLUMNS
            columns = query + BLOCK - low
            _products_with_keys(q + 4 * query * strides[1], strides[1], k, depth, low, columns, block, block_address)
            for i in range(BLOCK):
                slot = query + i
                first, last = firsts[of_row, slot] - low, slot + 1 - low
                row = block[i, first:last]
                _weigh(row, scale, slopes[head])
                highest = _highest(row)
                _exponentials(row, highest, bits, powers)
                total = _sum(row)
                sums[batch, head, slot] = highest + np.log(total)
                share = np.float32(1) / total
                for column in range(len(row)):
                    row[column] *= share
                _clear(block[i, :first])
                _clear(block[i, last:columns])
                _clear(out[batch, slot, head])
            add_product(
                block_address,
                block.shape[1],
                1,
                v + 4 * low * strides[4],
                strides[4],
                o + 4 * query * heads * depth,
                heads * depth,
                BLOCK,
                depth,
                columns,
            )


@kernel
def backpropagate_heads(
    start,
    end,
    heads,
    groups,
    queries,
    keys,
    d_out,
    strides,
    key_panels,
    value_panels,
    firsts,
    slopes,
    scale,
    out,
    sums,
    d_queries,
    d_keys,
    d_values,
    block,
    d_block,
    bits,
    powers,
):
    """Gradients of `attend_heads`. `d_queries`, `d_keys`, `d_values` (B, L, heads, D) are contiguous.

    Those of keys and values are each query head's own part, to be summed over the heads that share them. `d_out` is
    (B, L, heads, D) contiguous; `strides` are of queries and keys.
    """
    length, depth = out.shape[1], out.shape[3]
    key_heads = heads // groups
    block_address, d_block_address, row_floats = block.ctypes.data, d_block.ctypes.data, block.shape[1]
    out_row = heads * depth
    for item in range(start, end):
        batch, head = item // heads, item % heads
        key_head = head // groups
        of_row = batch % firsts.shape[0]
        panels_at = 4 * (batch * key_heads + key_head) * length * depth
        q = queries + 4 * (batch * strides[0] + head * strides[2])
        k = keys + 4 * (batch * strides[3] + key_head * strides[5])
        own = 4 * (batch * length * heads + head) * depth
        for slot in range(length):
            _clear(d_queries[batch, slot, head])
            _clear(d_keys[batch, slot, head])
            _clear(d_values[batch, slot, head])
        for query in range(0, length, BLOCK):
            low = firsts[of_row, query] // TILE_COLUMNS * TILE_COLUMNS
            columns = query + BLOCK - low
            q_at, d_out_at = q + 4 * query * strides[1], d_out.ctypes.data + own + 4 * query * out_row
            _products_with_keys(q_at, strides[1], key_panels + panels_at, depth, low, columns, block, block_address)
            _products_with_keys(
                d_out_at, out_row, value_panels + panels_at, depth, low, columns, d_block, d_block_address
            )
            for i in range(BLOCK):
                slot = query + i
                first, last = firsts[of_row, slot] - low, slot + 1 - low
                row, d_row = block[i, first:last], d_block[i, first:last]
                _weigh(row, scale, slopes[head])
                _exponentials(row, sums[batch, head, slot], bits, powers)
                common = _dot(d_out[batch, slot, head], out[batch, slot, head])
                for column in range(len(row)):
                    d_row[column] = row[column] * (d_row[column] - common) * scale
                for part in (block[i], d_block[i]):
                    _clear(part[:first])
                    _clear(part[last:columns])
            low_at = own + 4 * low * out_row
            add_product(
                block_address,
                1,
                row_floats,
                d_out_at,
                out_row,
                d_values.ctypes.data + low_at,
                out_row,
                columns,
                depth,
                BLOCK,
            )
            add_product(
                d_block_address,
                1,
                row_floats,
                q_at,
                strides[1],
                d_keys.ctypes.data + low_at,
                out_row,
                columns,
                depth,
                BLOCK,
            )
            add_product(
                d_block_address,
                row_floats,
                1,
                k + 4 * low * strides[4],
                strides[4],
                d_queries.ctypes.data + own + 4 * query * out_row,
                out_row,
                BLOCK,
                depth,
                columns,
            )
