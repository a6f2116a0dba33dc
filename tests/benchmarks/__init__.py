"""The benchmarks behind docs/performance.md: `make bench`, `bench-large`, `bench-gpu` and `bench-scaling`.

A module holds a group of rows. A row is checked first and timed afterwards, against another way to the same result.
"""
