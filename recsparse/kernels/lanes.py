"""Sixteen numbers at a time: what the compiler does not find by itself, written as LLVM vectors.

LLVM makes of a vector what the processor has: one AVX-512 register, two of AVX2, four of NEON.
"""

from collections.abc import Callable
from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from recsparse.kernels.bits import data_pointer

LANES = 16

SINGLE = ir.FloatType()
SINGLES = ir.VectorType(SINGLE, LANES)
WORDS = ir.VectorType(ir.IntType(32), LANES)
EIGHT = 8
EIGHT_WORDS = ir.VectorType(ir.IntType(32), EIGHT)


def constant(vector: Any, value: Any) -> Any:
    """The same number in every lane."""
    return ir.Constant(vector, [ir.Constant(vector.element, value)] * vector.count)


def splat(builder: Any, value: Any, vector: Any) -> Any:
    """A run-time number in every lane."""
    first = builder.insert_element(ir.Constant(vector, ir.Undefined), value, ir.Constant(ir.IntType(32), 0))
    lanes = ir.Constant(ir.VectorType(ir.IntType(32), vector.count), [ir.Constant(ir.IntType(32), 0)] * vector.count)
    return builder.shuffle_vector(first, ir.Constant(vector, ir.Undefined), lanes)


def order_of(vector: Any, first: int = 0) -> Any:
    """``first``, ``first + 1``, ... in the lanes."""
    return ir.Constant(vector, [ir.Constant(vector.element, first + lane) for lane in range(vector.count)])


def first_lanes(builder: Any, n: Any) -> Any:
    """Whether each lane is one of the first ``n``, an int64."""
    return builder.icmp_signed("<", order_of(WORDS), splat(builder, builder.trunc(n, ir.IntType(32)), WORDS))


def load(builder: Any, pointer: Any, vector: Any) -> Any:
    """An unaligned vector."""
    numbers = builder.load(builder.bitcast(pointer, vector.as_pointer()))
    numbers.align = 1
    return numbers


def store(builder: Any, numbers: Any, pointer: Any) -> None:
    """An unaligned vector."""
    builder.store(numbers, builder.bitcast(pointer, numbers.type.as_pointer())).align = 1


def gather(builder: Any, table: Any, places: Any, wanted: Any = None) -> Any:
    """``table[places]``, a vector, from a pointer to integers; 0 where it is not ``wanted``."""
    stored, n = table.type.pointee, places.type.count
    addresses = builder.gep(table, [ir.Constant(ir.IntType(64), 0)])
    addresses.indices, addresses.type = (places,), ir.VectorType(table.type, n)  # llvmlite knows single places only
    numbers, flag, bit = ir.VectorType(stored, n), ir.IntType(32), ir.IntType(1)
    wanted = wanted or constant(ir.VectorType(bit, n), 1)
    function = cgutils.get_or_insert_function(
        builder.module,
        ir.FunctionType(numbers, [addresses.type, flag, wanted.type, numbers]),
        f"llvm.masked.gather.v{n}i{stored.width}.v{n}p0",
    )
    align = ir.Constant(flag, stored.width // 8)
    return builder.call(function, [addresses, align, wanted, ir.Constant(numbers, None)])


def has(context: Any, feature: str) -> bool:
    """Whether what is being made is for an x86 processor with this."""
    triple, _, features = context.codegen().magic_tuple()
    return triple.startswith("x86") and f"+{feature}" in features.split(",")


def lacks(context: Any, feature: str) -> bool:
    """Whether what is being made is for an x86 processor without this."""
    return context.codegen().magic_tuple()[0].startswith("x86") and not has(context, feature)


def on_arm(context: Any) -> bool:
    """Whether what is being made is for a 64-bit ARM processor, all of which have NEON."""
    return context.codegen().magic_tuple()[0].startswith(("aarch64", "arm64"))  # type: ignore[no-any-return]


def permute(builder: Any, entries: Any, places: Any) -> Any:
    """``entries[places]``, of a power of two of them; places wrap around. One instruction where LLVM knows one."""
    word = ir.IntType(32)
    places = builder.and_(places, constant(places.type, entries.type.count - 1))
    found = ir.Constant(ir.VectorType(entries.type.element, places.type.count), ir.Undefined)
    for lane in range(places.type.count):
        entry = builder.extract_element(entries, builder.extract_element(places, ir.Constant(word, lane)))
        found = builder.insert_element(found, entry, ir.Constant(word, lane))
    return found


def joined(builder: Any, parts: list[Any]) -> Any:
    """One vector of a power of two of them."""
    while len(parts) > 1:
        both = order_of(ir.VectorType(ir.IntType(32), 2 * parts[0].type.count))
        parts = [builder.shuffle_vector(*pair, both) for pair in zip(parts[::2], parts[1::2], strict=True)]
    return parts[0]


def _permute_512(builder: Any, entries: Any, places: Any) -> Any:
    """``entries[places]`` of sixteen words or longs, by AVX-512: in a loop LLVM does not find it by itself."""
    kind = ir.VectorType(entries.type.element, 512 // entries.type.element.width)
    name, sources = ("vpermi2var.q", 3) if kind.count == EIGHT else ("permvar.si", 2)
    function = cgutils.get_or_insert_function(
        builder.module, ir.FunctionType(kind, [kind] * sources), f"llvm.x86.avx512.{name}.512"
    )
    parts = []
    for first in range(0, places.type.count, kind.count):
        some = builder.shuffle_vector(places, places, order_of(ir.VectorType(ir.IntType(32), kind.count), first))
        if kind.count == EIGHT:
            low, high = (builder.shuffle_vector(entries, entries, order_of(EIGHT_WORDS, half)) for half in (0, EIGHT))
            parts.append(builder.call(function, [low, some, high]))
        else:
            parts.append(builder.call(function, [entries, some]))
    return joined(builder, parts)


def choose(context: Any, builder: Any, entries: Any, places: Any) -> Any:
    """:func:`permute` for sixteen words, and a power of two of places; AVX2 permutes eight, and so twice.

    With AVX-512 for sixteen longs too, and then as many places as fill a vector.
    """
    if has(context, "avx512f"):
        return _permute_512(builder, entries, places)
    if not lacks(context, "avx512f"):
        return permute(builder, entries, places)
    low, high = (builder.shuffle_vector(entries, entries, order_of(EIGHT_WORDS, first)) for first in (0, EIGHT))
    parts = []
    for first in range(0, places.type.count, EIGHT):
        some = builder.shuffle_vector(places, places, order_of(EIGHT_WORDS, first))
        above = builder.icmp_unsigned("!=", builder.and_(some, constant(EIGHT_WORDS, EIGHT)), constant(EIGHT_WORDS, 0))
        parts.append(builder.select(above, permute(builder, high, some), permute(builder, low, some)))
    return joined(builder, parts)


Convert = Callable[[Any, Any, Any, Any], Any]


def _writer(stored: Any, convert: Convert, meaning: str) -> Any:
    """Make ``f(codes, at, factor, out, to)``: ``out[to:to + LANES]`` from the bytes at ``at``."""

    def write_lanes(typing_context, codes, at, factor, out, to):  # type: ignore[no-untyped-def]
        def codegen(context, builder, signature, args):  # type: ignore[no-untyped-def]
            codes, at, factor, out, to = args
            source = builder.gep(data_pointer(context, builder, signature.args[0], codes), [at])
            target = builder.gep(data_pointer(context, builder, signature.args[3], out), [to])
            numbers = load(builder, source, ir.VectorType(stored, LANES))
            store(builder, convert(context, builder, numbers, factor), target)
            return context.get_dummy_value()

        return types.void(codes, types.int64, types.float32, out, types.int64), codegen

    write_lanes.__doc__ = meaning
    return intrinsic(write_lanes)


def as_singles(_: Any, builder: Any, numbers: Any, __: Any) -> Any:
    """Float32, or integers that hold one's bits."""
    return builder.bitcast(numbers, SINGLES)


def as_halves(context: Any, builder: Any, numbers: Any, _: Any) -> Any:
    """Finite float16: one instruction, or fields shifted into place and the exponent mended by a product."""
    if has(context, "f16c") or on_arm(context):
        shorts = builder.trunc(numbers, ir.VectorType(SHORT, LANES))  # eights come sign-extended
        return builder.fpext(builder.bitcast(shorts, ir.VectorType(ir.HalfType(), LANES)), SINGLES)
    words = builder.zext(numbers, WORDS)
    magnitude = builder.shl(builder.and_(words, constant(WORDS, 0x7FFF)), constant(WORDS, 13))
    scaled = builder.fmul(builder.bitcast(magnitude, SINGLES), constant(SINGLES, 2.0**112))
    sign = builder.shl(builder.and_(words, constant(WORDS, 0x8000)), constant(WORDS, 16))
    return builder.bitcast(builder.or_(builder.bitcast(scaled, WORDS), sign), SINGLES)


def as_bfloats(_: Any, builder: Any, numbers: Any, __: Any) -> Any:
    """Bfloat16 are the upper halves of float32."""
    return builder.bitcast(builder.shl(builder.zext(numbers, WORDS), constant(WORDS, 16)), SINGLES)


def as_bytes(_: Any, builder: Any, numbers: Any, factor: Any) -> Any:
    """Signed integers times the factor."""
    return builder.fmul(builder.sitofp(numbers, SINGLES), splat(builder, factor, SINGLES))


SHORT, BYTE = ir.IntType(16), ir.IntType(8)
write_singles = _writer(SINGLE, as_singles, "Sixteen float32 as they are.")
write_halves = _writer(SHORT, as_halves, "Sixteen float16.")
write_bfloats = _writer(SHORT, as_bfloats, "Sixteen bfloat16.")
write_bytes = _writer(BYTE, as_bytes, "Sixteen signed bytes, times the factor.")


@intrinsic
def write_integers(typing_context, codes, at, width, factor, out, to):  # type: ignore[no-untyped-def]
    """Sixteen integers of ``width`` <= 7 bits from bit ``at``, times the factor; eight are in reach of one word."""

    def codegen(context, builder, signature, args):  # type: ignore[no-untyped-def]
        codes, at, width, factor, out, to = args
        long = ir.IntType(64)
        half = LANES // 2
        longs, singles = ir.VectorType(long, half), ir.VectorType(SINGLE, half)
        source = data_pointer(context, builder, signature.args[0], codes)
        target = builder.gep(data_pointer(context, builder, signature.args[4], out), [to])
        up = builder.sub(ir.Constant(long, 64), width)
        steps = builder.mul(splat(builder, width, longs), order_of(longs))
        for part in range(2):
            bit = builder.add(at, builder.mul(width, ir.Constant(long, part * half)))
            word = load(builder, builder.gep(source, [builder.lshr(bit, ir.Constant(long, 3))]), long)
            word = builder.lshr(word, builder.and_(bit, ir.Constant(long, 7)))
            lifted = builder.shl(splat(builder, word, longs), builder.sub(splat(builder, up, longs), steps))
            numbers = builder.ashr(lifted, splat(builder, up, longs))
            narrow = builder.trunc(numbers, ir.VectorType(ir.IntType(32), half))
            scaled = builder.fmul(builder.sitofp(narrow, singles), splat(builder, factor, singles))
            store(builder, scaled, builder.gep(target, [ir.Constant(long, part * half)]))
        return context.get_dummy_value()

    return types.void(codes, types.int64, types.int64, types.float32, out, types.int64), codegen


@intrinsic
def write_zeros(typing_context, out, to):  # type: ignore[no-untyped-def]
    """Sixteen zeros."""

    def codegen(context, builder, signature, args):  # type: ignore[no-untyped-def]
        target = builder.gep(data_pointer(context, builder, signature.args[0], args[0]), [args[1]])
        store(builder, constant(SINGLES, 0.0), target)
        return context.get_dummy_value()

    return types.void(out, types.int64), codegen


@intrinsic
def compress(typing_context, source, start, least, out, to):  # type: ignore[no-untyped-def]
    """Write those of ``source[start:start + 16]`` that are not below ``least``, NaN among them, to ``out[to:]``.

    All are float32. Gives how many were written. One instruction where the processor has it (AVX-512), a short loop
    elsewhere.
    """

    def codegen(context, builder, signature, args):  # type: ignore[no-untyped-def]
        source, start, least, out, to = args
        numbers = load(
            builder, builder.gep(data_pointer(context, builder, signature.args[0], source), [start]), SINGLES
        )
        chosen = builder.fcmp_unordered(">=", numbers, splat(builder, least, SINGLES))
        function = cgutils.get_or_insert_function(
            builder.module,
            ir.FunctionType(ir.VoidType(), [SINGLES, SINGLE.as_pointer(), chosen.type]),
            f"llvm.masked.compressstore.v{LANES}f32",
        )
        out = builder.gep(data_pointer(context, builder, signature.args[3], out), [to])
        builder.call(function, [numbers, out, chosen])
        return builder.zext(builder.ctpop(builder.bitcast(chosen, ir.IntType(LANES))), ir.IntType(64))

    return types.int64(source, types.int64, types.float32, out, types.int64), codegen


@intrinsic
def sum_integers(typing_context, codes, at, width, n):  # type: ignore[no-untyped-def]
    """The sum of the first ``n`` of sixteen ``width`` <= 7 bit numbers from bit ``at``."""

    def codegen(context, builder, signature, args):  # type: ignore[no-untyped-def]
        codes, at, width, n = args
        long, word, half = ir.IntType(64), ir.IntType(32), LANES // 2
        longs = ir.VectorType(long, half)
        source = data_pointer(context, builder, signature.args[0], codes)
        steps = builder.mul(splat(builder, width, longs), order_of(longs))
        ones = builder.sub(builder.shl(ir.Constant(long, 1), width), ir.Constant(long, 1))
        halves = []
        for part in range(2):
            bit = builder.add(at, builder.mul(width, ir.Constant(long, part * half)))
            packed = load(builder, builder.gep(source, [builder.lshr(bit, ir.Constant(long, 3))]), long)
            packed = builder.lshr(packed, builder.and_(bit, ir.Constant(long, 7)))
            numbers = builder.and_(builder.lshr(splat(builder, packed, longs), steps), splat(builder, ones, longs))
            halves.append(builder.trunc(numbers, ir.VectorType(word, half)))
        numbers = builder.select(
            first_lanes(builder, n), builder.shuffle_vector(*halves, order_of(WORDS)), constant(WORDS, 0)
        )
        add = cgutils.get_or_insert_function(
            builder.module, ir.FunctionType(word, [WORDS]), f"llvm.vector.reduce.add.v{LANES}i32"
        )
        return builder.zext(builder.call(add, [numbers]), long)

    return types.int64(codes, types.int64, types.int64, types.int64), codegen


@intrinsic
def mask_of(typing_context, columns, at, width, n, first):  # type: ignore[no-untyped-def]
    """The bits, counted from ``first``, of the first ``n`` of sixteen ``width`` <= 7 bit columns at bit ``at``.

    Columns before ``first`` and from ``first + 64`` on are left out.
    """

    def codegen(context, builder, signature, args):  # type: ignore[no-untyped-def]
        columns, at, width, n, first = args
        long, half = ir.IntType(64), LANES // 2
        longs = ir.VectorType(long, half)
        source = data_pointer(context, builder, signature.args[0], columns)
        order = order_of(longs)
        steps = builder.mul(splat(builder, width, longs), order)
        ones = builder.sub(builder.shl(ir.Constant(long, 1), width), ir.Constant(long, 1))
        mask = constant(longs, 0)
        for part in range(2):
            bit = builder.add(at, builder.mul(width, ir.Constant(long, part * half)))
            word = load(builder, builder.gep(source, [builder.lshr(bit, ir.Constant(long, 3))]), long)
            word = builder.lshr(word, builder.and_(bit, ir.Constant(long, 7)))
            numbers = builder.and_(builder.lshr(splat(builder, word, longs), steps), splat(builder, ones, longs))
            place = builder.sub(numbers, splat(builder, first, longs))
            left = builder.sub(n, ir.Constant(long, part * half))
            wanted = builder.and_(
                builder.icmp_signed("<", order, splat(builder, left, longs)),
                builder.icmp_unsigned("<", place, constant(longs, 64)),
            )
            bits = builder.shl(constant(longs, 1), builder.and_(place, constant(longs, 63)))
            mask = builder.or_(mask, builder.select(wanted, bits, constant(longs, 0)))
        reduce = cgutils.get_or_insert_function(
            builder.module, ir.FunctionType(long, [longs]), f"llvm.vector.reduce.or.v{half}i64"
        )
        return builder.call(reduce, [mask])

    return types.uint64(columns, types.int64, types.int64, types.int64, types.int64), codegen


@intrinsic
def prefetch(typing_context, buffer, at):  # type: ignore[no-untyped-def]
    """Ask for the cache line of byte ``at``; harmless wherever that is."""

    def codegen(context, builder, signature, args):  # type: ignore[no-untyped-def]
        flag = ir.IntType(32)
        byte = ir.IntType(8).as_pointer()
        start = builder.bitcast(data_pointer(context, builder, signature.args[0], args[0]), byte)
        pointer = builder.gep(start, [args[1]])
        function = cgutils.get_or_insert_function(
            builder.module, ir.FunctionType(ir.VoidType(), [byte, flag, flag, flag]), "llvm.prefetch.p0"
        )
        builder.call(function, [pointer, ir.Constant(flag, 0), ir.Constant(flag, 3), ir.Constant(flag, 1)])
        return context.get_dummy_value()

    return types.void(buffer, types.int64), codegen
