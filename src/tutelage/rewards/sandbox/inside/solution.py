"""Serves the model's code: looks names up in it and calls them when the examiner asks.

Arguments: the descriptors to read questions from and to write answers to. What the code does to
this process is its own affair: all that leaves it are values, and the examiner judges them.
"""

import os
import sys
from importlib.machinery import SourceFileLoader
from types import ModuleType

from wire import Reference, decode, encode, receive, send

__all__ = ["Objects", "main", "reply"]


class Objects:
    """What stays here, by number."""

    def __init__(self, module):
        """Number 0 is the solution's module."""
        self.items = [module]
        self.numbers = {id(module): 0}

    def keep(self, value):
        """The reference to a value; the same one for the same object."""
        number = self.numbers.setdefault(id(value), len(self.items))
        if number == len(self.items):
            self.items.append(value)
        return Reference(number, type(value).__name__)

    def find(self, reference):
        """What a reference stands for."""
        return self.items[reference.number]

    def answer(self, question):
        """Gets, sets or calls an attribute of something kept here."""
        target = self.items[question["of"]]
        name = question["name"]
        given = [decode(argument, self.find) for argument in question["arguments"]]
        if question["do"] == "set":
            return setattr(target, name, *given)
        found = getattr(target, name)
        if question["do"] == "get":
            return found
        named = {key: decode(value, self.find) for key, value in question["named"].items()}
        return found(*given, **named)


def main():
    """Loads the solution, says whether that worked, then answers until nobody asks."""
    questions = open(int(sys.argv[1]), "rb")
    answers = open(int(sys.argv[2]), "wb")
    module = ModuleType("solution")
    sys.modules["solution"] = module
    objects = Objects(module)
    loader = SourceFileLoader("solution", os.path.abspath("solution_code.py"))
    reply(answers, objects, lambda: loader.exec_module(module))
    while True:
        question = receive(questions)
        reply(answers, objects, lambda question=question: objects.answer(question))


def reply(answers, objects, act):
    """Sends what `act` returns, or how it failed."""
    try:
        message = {"value": encode(act(), objects.keep)}
    except BaseException as error:
        message = {"raised": type(error).__name__, "text": str(error)[:500]}
    send(answers, message)


main()
