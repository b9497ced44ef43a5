"""Classic reinforcement learning, small enough to see through: `tutelage lab NAME`.

    gridworld   tabular Q-learning, checked against the exact optimum
    bandit      ten arms, epsilon-greedy against softmax: what a sampling temperature does
    cartpole    policy gradients through the functions that train language models
    timeline    from the perceptron to GPT-4, one figure

Each lab is a module of algorithms, a function that runs its exercises and returns a
`LabResult`, and a page in `docs/labs/`.
"""

__all__: list[str] = []
