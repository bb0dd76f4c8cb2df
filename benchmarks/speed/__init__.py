"""How fast mtopt is, against others in the same run. ``python -m mtopt_suites.speed.weights``: the weights alone."""
