"""Functional tests: real Terraform, real Docker engine, real Prefect server, real containers.

The files run in the order of their numbers, on one platform that the first one deploys and the last one destroys.
"""
