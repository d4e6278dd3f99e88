"""Deployments on AWS."""
