"""Classic reinforcement learning, small enough to see through: `tutelage lab NAME`.

    gridworld   tabular Q-learning, checked against the exact optimum
    bandit      ten arms, epsilon-greedy against softmax: what a sampling temperature does
    cartpole    policy gradients through the functions that train language models
    timeline    from the perceptron to GPT-4, one figure

Each lab is a module of algorithms, a function that runs its exercises and returns a
`LabResult`, and a page in `docs/labs/`.
"""

from typing import Literal

__all__ = ["Exploration"]

Exploration = Literal["epsilon-greedy", "boltzmann"]
"""How Q-learning tries moves that do not look best. Here, where asking for help loads no numpy."""
