"""The parts of `make setup`, one concept a module; `scripts/setup_env.py` puts them in order.

Only the standard library: these modules run before anything is installed.
"""
