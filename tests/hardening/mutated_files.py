"""Hostile versions of valid files: seeded, so that the same numbers give the same bytes."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable
from typing import Any

import numpy as np

Mutation = Callable[[bytes, np.random.Generator], bytes]

ODD_VALUES: tuple[Any, ...] = (
    None, True, -1, 0, 1.5, 2**31, 2**63, 10**30, -(10**18), 1e308, float("inf"), float("nan"), "", "x" * 5_000, "\0",
    "\ud800", "\u202e", "=cmd()|' /C calc'!A0", "</script><script>alert(1)</script>", "\x1b[31m", "../../etc/passwd",
    "/etc/passwd", [], {}, [[]], [None], {"a": []}, [1, "a", None], {"": {}}, "nan", "1e999", "F32", [0, 0], [2**62, 2],
)  # fmt: skip
ODD_TEXTS: tuple[bytes, ...] = (
    b"\0", b"\xef\xbb\xbf", b"\xff\xfe", b"\xc3\x28", b"\xed\xa0\x80", b"\r\n", b"\r", b"\n\n", b'"', b'"""', b"'",
    b",", b";", b"\t", b"=cmd()|' /C calc'!A0", b"@SUM(1)", b"\x1b]0;owned\x07", b"\x1b[2J", b"</script>", b"{}{}",
    b"1e999", b"-1", b"nan", b"inf", b"9" * 5_000, b"0x10", b"[", b"]", b"{", b"}", b"[[", b"[" * 3_000, b"{" * 3_000,
    b"- " * 2_000, b"a.b" * 50, b"&a [*a]", b"!!python/object/apply:os.system [id]", b"&x", b"*x", b"<!DOCTYPE a>",
    b"<a>" * 2_000, b"&amp;", b"&#0;", b"\\ud800", b"\\u0000", b"2020-13-45", b"\xe2\x80\xae", b"A" * 10_000, b"|",
)  # fmt: skip
SIZES = (0, 1, 0x7F, 0xFF, 0x7FFF, 0xFFFF, 0x7FFFFFFF, 0xFFFFFFFF, 2**33, 2**62, 2**63 - 1, 2**64 - 1)


def _at(data: bytes, rng: np.random.Generator) -> int:
    return int(rng.integers(len(data) + 1))


def flip_bits(data: bytes, rng: np.random.Generator) -> bytes:
    """Flip one to eight bits."""
    out = bytearray(data)
    for _ in range(int(rng.integers(1, 9)) if out else 0):
        out[int(rng.integers(len(out)))] ^= 1 << int(rng.integers(8))
    return bytes(out)


def flip_early(data: bytes, rng: np.random.Generator) -> bytes:
    """Change one byte of the first 512, where headers stand."""
    out = bytearray(data)
    if out:
        out[int(rng.integers(min(len(out), 512)))] = int(rng.integers(256))
    return bytes(out)


def cut(data: bytes, rng: np.random.Generator) -> bytes:
    """Keep a beginning, or lose it."""
    at = _at(data, rng)
    return data[:at] if rng.random() < 0.8 else data[at:]


def insert_bytes(data: bytes, rng: np.random.Generator) -> bytes:
    """Put random bytes in."""
    at = _at(data, rng)
    return data[:at] + rng.bytes(int(rng.integers(1, 64))) + data[at:]


def swap_blocks(data: bytes, rng: np.random.Generator) -> bytes:
    """Let two neighbouring blocks change places."""
    a, b, c = sorted(_at(data, rng) for _ in range(3))
    return data[:a] + data[b:c] + data[a:b] + data[c:]


def repeat_block(data: bytes, rng: np.random.Generator) -> bytes:
    """Let a block stand up to 64 times."""
    a = _at(data, rng)
    block = data[a : a + int(rng.integers(1, 256))]
    return data[:a] + block * int(rng.integers(2, 64)) + data[a:]


def blank_block(data: bytes, rng: np.random.Generator) -> bytes:
    """Set a block to 0 or 255."""
    a, n = _at(data, rng), int(rng.integers(1, 128))
    gone = data[a : a + n]
    return data[:a] + (b"\0" if rng.random() < 0.5 else b"\xff") * len(gone) + data[a + n :]


def declare_size(data: bytes, rng: np.random.Generator) -> bytes:
    """Write an odd size over 1, 2, 4 or 8 bytes, in either byte order, more often near the beginning."""
    form = str(rng.choice(["B", "<H", ">H", "<I", ">I", "<Q", ">Q"]))
    width = struct.calcsize(form)
    size = int(SIZES[int(rng.integers(len(SIZES)))]) % (1 << 8 * width)
    end = max(1, len(data) - width)
    at = int(rng.integers(min(end, 256))) if rng.random() < 0.6 else int(rng.integers(end))
    return data[:at] + struct.pack(form, size) + data[at + width :]


def insert_odd_text(data: bytes, rng: np.random.Generator) -> bytes:
    """Put in what text formats stumble over: NUL, broken UTF-8, quotes, brackets by the thousand, formulas, escapes."""
    at = 0 if rng.random() < 0.2 else _at(data, rng)
    return data[:at] + ODD_TEXTS[int(rng.integers(len(ODD_TEXTS)))] + data[at:]


def replace_word(data: bytes, rng: np.random.Generator) -> bytes:
    """Put odd text in a word's place."""
    if not data:
        return data
    start = int(rng.integers(len(data)))
    end = start
    while end < len(data) and data[end : end + 1].isalnum():
        end += 1
    while start > 0 and data[start - 1 : start].isalnum():
        start -= 1
    return data[:start] + ODD_TEXTS[int(rng.integers(len(ODD_TEXTS)))] + data[end:]


def other_line_ends(data: bytes, rng: np.random.Generator) -> bytes:
    """Write line ends of another system, a byte-order mark, or UTF-16."""
    kind = int(rng.integers(5))
    if kind == 4:
        return data.decode("utf-8", "replace").encode("utf-16")
    return (data.replace(b"\n", b"\r\n"), data.replace(b"\n", b"\r"), b"\xef\xbb\xbf" + data, data + b"\0" * 100)[kind]


def nothing_or_noise(data: bytes, rng: np.random.Generator) -> bytes:
    """Return no bytes, zeros, or noise of about the same size."""
    return (b"", b"\0" * len(data), rng.bytes(min(len(data), 4_096)), b"\n")[int(rng.integers(4))]


def nested_deeply(data: bytes, rng: np.random.Generator) -> bytes:
    """Return brackets in brackets, far deeper than any parser goes down by itself."""
    n = int(rng.choice([500, 5_000, 100_000]))
    opened, closed = ((b"[", b"]"), (b'{"a":', b"}"), (b"a = [", b"]"), (b"<a>", b"</a>"))[int(rng.integers(4))]
    return opened * n + b"1" + closed * n if rng.random() < 0.7 else data + b"\n" + opened * n


def odd_json(data: bytes, rng: np.random.Generator) -> bytes:
    """Put an odd value in the place of one in a JSON document, or drop or rename a field."""
    try:
        whole = json.loads(data)
    except (ValueError, RecursionError):
        return insert_odd_text(data, rng)
    places = list(_places(whole))
    if not places:
        return json.dumps(ODD_VALUES[int(rng.integers(len(ODD_VALUES)))]).encode()
    for _ in range(int(rng.integers(1, 3))):
        holder, key = places[int(rng.integers(len(places)))]
        kind = rng.random()
        if isinstance(holder, dict) and kind < 0.2:
            holder.pop(key, None)
        elif isinstance(holder, list) and kind < 0.2:
            holder.extend(holder[:20] * 3)
        else:
            holder[key] = ODD_VALUES[int(rng.integers(len(ODD_VALUES)))]
    return json.dumps(whole).encode()


def _places(value: Any, most: int = 3_000) -> list[tuple[Any, Any]]:
    """Return (container, key) of every value inside, outermost first."""
    found: list[tuple[Any, Any]] = []
    queue = [value]
    while queue and len(found) < most:
        holder = queue.pop(0)
        items = holder.items() if isinstance(holder, dict) else enumerate(holder) if isinstance(holder, list) else ()
        for key, inner in items:
            found.append((holder, key))
            if isinstance(inner, (dict, list)):
                queue.append(inner)
    return found


def odd_json_lines(data: bytes, rng: np.random.Generator) -> bytes:
    """Change one line of JSON lines."""
    lines = data.splitlines(keepends=True)
    if not lines:
        return data
    at = int(rng.integers(len(lines)))
    lines[at] = odd_json(lines[at], rng) + b"\n"
    return b"".join(lines)


def odd_safetensors(data: bytes, rng: np.random.Generator) -> bytes:
    """Change the JSON header of a safetensors file, with its length put right, and metadata that is JSON in JSON."""
    length = int.from_bytes(data[:8], "little")
    header, rest = data[8 : 8 + length], data[8 + length :]
    try:
        whole = json.loads(header)
    except (ValueError, RecursionError):
        return flip_early(data, rng)
    if rng.random() < 0.5 and isinstance(whole, dict):
        metadata = whole.get("__metadata__")
        metadata = metadata if isinstance(metadata, dict) else {}
        for name, text in metadata.items():
            metadata[name] = (
                text
                if not isinstance(text, str)
                else odd_json(text.encode("utf-8", "surrogatepass"), rng).decode("utf-8", "replace")
            )
        header = json.dumps(whole).encode()
    else:
        header = odd_json(header, rng)
    return len(header).to_bytes(8, "little") + header + rest


BYTES: tuple[Mutation, ...] = (
    flip_bits, flip_early, cut, insert_bytes, swap_blocks, repeat_block, blank_block, declare_size, nothing_or_noise,
)  # fmt: skip
TEXT: tuple[Mutation, ...] = (
    *BYTES, insert_odd_text, insert_odd_text, replace_word, replace_word, other_line_ends, nested_deeply,
)  # fmt: skip
JSON: tuple[Mutation, ...] = (*TEXT, *(odd_json,) * 10)
KINDS: dict[str, tuple[Mutation, ...]] = {
    "bytes": BYTES,
    "text": TEXT,
    "json": JSON,
    "json_lines": (*TEXT, *(odd_json_lines,) * 10),
    "safetensors": (*BYTES, *(odd_safetensors,) * 6),
}


def mutated(data: bytes, kind: str, rng: np.random.Generator) -> bytes:
    """Return a changed version of a valid file: one to three mutations of its kind, a key of `KINDS`."""
    mutations = KINDS[kind]
    for _ in range(int(rng.choice([1, 1, 1, 2, 3]))):
        data = mutations[int(rng.integers(len(mutations)))](data, rng)
    return data[: 1 << 22]
