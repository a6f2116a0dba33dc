"""The figures of a report, a module each: `tidy` makes the table behind a figure, `draw` the figure from that alone."""
