"""Suites that rules are compared on, each a package with a ``suite``: ``mtopt compare toy``.

The wheel installs this folder under the name ``mtopt_suites``, so that it is never taken for the ``benchmarks`` of
another project; imports among the suites are relative, and hold under both names.
"""
