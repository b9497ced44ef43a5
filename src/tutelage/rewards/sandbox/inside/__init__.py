"""Programs that run inside the sandbox. They are sent in as text and never imported here.

start.py      takes the limits, locks the door, then runs the program
solution.py   serves the model's code to an examiner in another sandbox
examiner.py   runs unit tests against a solution it only sees through a pipe
wire.py       how the two speak
"""

__all__: list[str] = []
