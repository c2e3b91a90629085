"""Functional tests: real Terraform, real Docker engine, real Prefect server, real containers.

The files run in two workers side by side, each in the order of their numbers on a platform of its own (conftest.py).
"""
