"""Runs unit tests against a solution that lives in another sandbox.

    test ──calls──> Remote ──question──> solution.py
      ^                └──────value─────────┘
      └─ compares here, with plain values and a Python the solution cannot touch

Arguments: the descriptors to read answers from and to write questions to, the number of tests, then
names that are the solution's even where Python has a builtin so called. Writes one line of JSON per
test to standard output; what tests print goes to standard error.
"""

import builtins
import importlib
import json
import os
import sys
from importlib.machinery import SourceFileLoader
from types import ModuleType

from wire import Reference, decode, encode, receive, send

__all__ = [
    "Remote",
    "Solution",
    "SolutionError",
    "examine",
    "main",
    "names_in",
    "provide",
    "run",
    "special",
]


class SolutionError(Exception):
    """The solution raised something that is no builtin exception."""


class Remote(Reference):
    """Something of the solution's: can be called, asked, iterated; equal to itself alone."""

    def __init__(self, solution, number, type_name):
        """Kept out of `__setattr__`, which speaks to the solution."""
        self.__dict__.update(solution=solution, number=number, type_name=type_name)

    def __getattr__(self, name):
        """An attribute as the solution gives it."""
        return self.solution.ask("get", self.number, name)

    def __call__(self, *given, **named):
        """What the solution's function returns or raises."""
        return self.solution.ask("call", self.number, "__call__", *given, **named)

    def __setattr__(self, name, value):
        """Sets it in the solution's process."""
        self.solution.ask("set", self.number, name, value)

    def __eq__(self, other):
        """Never the solution's own idea of equality."""
        return isinstance(other, Remote) and other.number == self.number

    def __hash__(self):
        """By number."""
        return hash(self.number)

    def __repr__(self):
        """What a failed assertion shows."""
        return f"<{self.type_name} of the solution>"


def special(name):
    """A method of Python's protocols, answered by the solution."""

    def method(self, *given):
        try:
            return self.solution.ask("call", self.number, name, *given)
        except AttributeError as error:  # what Python says of a type without the protocol
            raise TypeError(str(error)) from error

    return method


for protocol in ("__iter__", "__next__", "__len__", "__getitem__", "__str__"):
    setattr(Remote, protocol, special(protocol))


class Solution:
    """The other side."""

    def __init__(self, answers, questions):
        """Takes two descriptors."""
        self.answers, self.questions = open(answers, "rb"), open(questions, "wb")

    def answer(self):
        """The value of the next answer; raises what the solution raised."""
        message = receive(self.answers)
        if "raised" not in message:
            return decode(message["value"], lambda r: Remote(self, r.number, r.type_name))
        kind = getattr(builtins, str(message["raised"]), None)
        if isinstance(kind, type) and issubclass(kind, Exception):
            raise kind(message["text"])
        raise SolutionError(f"{message['raised']}: {message['text']}")

    def ask(self, action, number, name, *given, **named):
        """Sends a question and waits."""
        question = {
            "do": action,
            "of": number,
            "name": name,
            "arguments": [encode(value, self.travel) for value in given],
            "named": {key: encode(value, self.travel) for key, value in named.items()},
        }
        send(self.questions, question)
        return self.answer()

    @staticmethod
    def travel(value):
        """What is the solution's goes back as its number."""
        if isinstance(value, Remote):
            return value
        raise TypeError(f"{type(value).__name__} cannot be sent to a solution, only plain values")


def names_in(code):
    """Every name some part of the code looks up."""
    yield from code.co_names
    for constant in code.co_consts:
        if isinstance(constant, type(code)):
            yield from names_in(constant)


def provide(namespace, source, solution, own):
    """Binds the names of `source` that are the solution's."""
    for name in dict.fromkeys(names_in(compile(source, "test", "exec"))):
        known = name in namespace or hasattr(builtins, name) or name.startswith("__")
        if known and name not in own:
            continue
        try:
            found = solution.ask("get", 0, name)
        except AttributeError:
            continue
        if isinstance(found, Remote) and found.type_name == "module":
            # A module that the solution imports is taken from here.
            if name not in sys.stdlib_module_names:
                continue
            found = importlib.import_module(name)
        namespace[name] = found


def run(path, namespace, solution, own):
    """Runs a file in a namespace."""
    with open(path, encoding="utf-8", errors="surrogatepass", newline="") as file:
        provide(namespace, file.read(), solution, own)
    SourceFileLoader(namespace["__name__"], os.path.abspath(path)).exec_module(
        sys.modules[namespace["__name__"]]
    )


def examine(number, solution, own):
    """(passed, why not) of one test."""
    module = sys.modules["unit_test"] = ModuleType("unit_test")
    try:
        run("setup_code.py", vars(module), solution, own)
        run(f"test_{number}.py", vars(module), solution, own)
    except BaseException as error:
        return False, f"{type(error).__name__}: {str(error)[:300]}".rstrip(": ")
    return True, ""


def main():
    """Runs all tests; a solution that does not load fails each of them."""
    report = open(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    solution = Solution(int(sys.argv[1]), int(sys.argv[2]))
    own = set(sys.argv[4:])
    try:
        solution.answer()
        broken = ""
    except BaseException as error:
        broken = f"the solution does not load: {type(error).__name__}: {str(error)[:300]}"
    for number in range(int(sys.argv[3])):
        passed, reason = (False, broken) if broken else examine(number, solution, own)
        print(json.dumps([passed, reason]), file=report, flush=True)


main()
