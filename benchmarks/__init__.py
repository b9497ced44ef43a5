"""How fast Tutelage is, side by side with its peers on the same machine in the same run.

    python -m benchmarks C1f C5        rows by name; `make bench` runs all that need no GPU

`docs/performance.md` says what each row measures and shows the last results.
"""
