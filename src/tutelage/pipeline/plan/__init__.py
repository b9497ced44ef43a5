"""What a recipe needs, computed before anything is loaded.

    recipe ──references──> sizes of its models ──> bytes and operations of each stage
                                                      │
    device: memory, measured or tabulated rates ──────┴──> peak, seconds, what would make it fit

Everything is arithmetic on plain numbers. `sizes` counts weights, `memory` turns them into bytes,
`training`, `reinforcement` and `sampling` know what each kind of stage keeps at the same time,
`devices` knows where it runs, `knobs` what to change.
"""

__all__: list[str] = []
