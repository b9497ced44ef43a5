"""An environment of one's own: a number from 1 to 9 is to be found.

In a recipe's train or evaluate stage:

    environment: {name: examples/higher_or_lower.py:HigherOrLower, max_turns: 4}
"""

import random

from tutelage import Message, Reply


class HigherOrLower:
    """Says higher or lower until the number is found."""

    def reset(self, prompt, seed):
        """Thinks of a number."""
        self.number = random.Random(seed).randint(1, 9)

    def step(self, messages):
        """Ends with reward 1 where the number was found; nonsense costs a tenth."""
        guess = messages[-1].content.strip()
        if guess == str(self.number):
            return Reply(reward=1.0)
        if guess not in list("123456789"):
            return Reply([Message("user", "a number from 1 to 9, please")], reward=-0.1)
        hint = "higher" if int(guess) < self.number else "lower"
        return Reply([Message("user", hint)])
