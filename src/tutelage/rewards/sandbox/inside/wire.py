"""How an examiner and a solution speak through two pipes: one line of JSON per message.

Values that compare by content travel by value, as plain Python objects: what arrives is a number, a
text or a collection of such, whatever class it had on the other side. Everything else, functions,
instances and iterators of the solution, stays there and travels as a number to ask about.
"""

import builtins
import json
from decimal import Decimal
from fractions import Fraction

__all__ = ["Reference", "decode", "encode", "named", "receive", "send"]

LONGEST_MESSAGE = 16 << 20
COLLECTIONS = {"tuple": tuple, "set": set, "frozenset": frozenset}
EXACT = {"Decimal": Decimal, "Fraction": Fraction}


class Reference:
    """Something the solution keeps; here only its number and the name of its type."""

    def __init__(self, number, type_name):
        """`number` is the place in the solution's table."""
        self.number, self.type_name = number, type_name


def encode(value, keep):
    """`value` as JSON; `keep` turns what cannot travel into a `Reference`."""
    if value is None or isinstance(value, bool | float | str):
        return value
    if isinstance(value, int):
        return value if abs(value) < 1 << 53 else {"int": hex(value)}
    if isinstance(value, dict):
        pairs = [[encode(k, keep), encode(v, keep)] for k, v in value.items()]
        return {"dict": pairs}
    if isinstance(value, list):
        return [encode(item, keep) for item in value]
    for name, kind in COLLECTIONS.items():
        if isinstance(value, kind):
            return {name: [encode(item, keep) for item in value]}
    if (by_name := named(value)) is not None:
        return by_name
    reference = keep(value)
    return {"reference": [reference.number, reference.type_name]}


def named(value):
    """Values that are written as text, with the name of their kind; nothing for others."""
    if isinstance(value, bytes | bytearray):
        return {"bytes": value.hex()}
    if isinstance(value, complex):
        return {"complex": [value.real, value.imag]}
    if isinstance(value, Decimal | Fraction):
        return {type(value).__name__: str(value)}
    if isinstance(value, type):
        name = value.__name__
        if getattr(builtins, name, None) is value:
            return {"type": name}
    return None


def decode(message, find):
    """The value of what `encode` wrote; `find` says what stands for a `Reference`."""
    if isinstance(message, list):
        return [decode(item, find) for item in message]
    if not isinstance(message, dict):
        return message
    ((name, content),) = message.items()
    if name == "dict":
        return {decode(key, find): decode(value, find) for key, value in content}
    if name in COLLECTIONS:
        return COLLECTIONS[name](decode(item, find) for item in content)
    if name == "int":
        return int(content, 16)
    if name in EXACT:
        return EXACT[name](content)
    if name == "bytes":
        return bytes.fromhex(content)
    if name == "complex":
        return complex(*content)
    if name == "type" and isinstance(found := getattr(builtins, content), type):
        return found
    return find(Reference(*content))


def send(pipe, message):
    """Writes one message."""
    pipe.write(json.dumps(message).encode() + b"\n")
    pipe.flush()


def receive(pipe):
    """The next message.

    Raises:
        EOFError: the other side has ended, or its message is too long or no JSON.
    """
    line = pipe.readline(LONGEST_MESSAGE)
    if not line.endswith(b"\n"):
        raise EOFError("the solution ended" if len(line) < LONGEST_MESSAGE else "message too long")
    return json.loads(line)
