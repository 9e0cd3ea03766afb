"""Adaptations to the hosts and to the versions of their dependencies."""
