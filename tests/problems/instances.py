"""The problems that every test of a promise of `Problem` runs on: all of the registry, and variants."""

from mtopt.problems import create_problem, list_problems

INSTANCES = {name: create_problem(name) for name in list_problems()} | {
    "zdt1-2": create_problem("zdt1", num_variables=2),
    "zdt2": create_problem("zdt2", num_variables=5),
    "vlmop2-1": create_problem("vlmop2", num_variables=1),
    "vlmop2-20": create_problem("vlmop2", num_variables=20),
    "jos1-3": create_problem("jos1", num_variables=3),
    "quadratic_pair-10": create_problem("quadratic_pair", num_variables=10, condition=100.0, seed=3),
    "quadratics-5": create_problem("quadratics", num_variables=7, num_objectives=5, seed=2),
    "cagrad_toy-nash": create_problem("cagrad_toy", scale=0.1),
    "dtlz1-2": create_problem("dtlz1", num_objectives=2),
    "dtlz2-5": create_problem("dtlz2", num_objectives=5),
    "dtlz5-2": create_problem("dtlz5", num_objectives=2),
    "dtlz7-2": create_problem("dtlz7", num_objectives=2),
    "maf1-2": create_problem("maf1", num_objectives=2),
    "maf1-4": create_problem("maf1", num_objectives=4),
}

# no closed form: what is known of them is their ideal point
WITHOUT_FRONT = ("re24", "re31", "re32", "re33", "re34", "re37", "re41", "re42", "re61", "re91")
FRONTS = {key: problem for key, problem in INSTANCES.items() if key not in WITHOUT_FRONT}
# the front of the PCGrad toy is one point
CURVES = {key: problem for key, problem in FRONTS.items() if problem.num_objectives == 2 and key != "pcgrad_toy"}
# in pieces: the area under them is not that under their polygon
CONNECTED = {key: problem for key, problem in CURVES.items() if key not in ("zdt3", "dtlz7-2")}
