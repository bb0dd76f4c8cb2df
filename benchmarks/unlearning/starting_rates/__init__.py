"""How much a method's result depends on the learning rate it starts from: every method from the same eight rates.

python -m mtopt_suites.unlearning.starting_rates --out runs/starting_rates
"""
