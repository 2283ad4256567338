"""Compiled inner loops; numba keeps their code, by :mod:`recsparse.kernels.cache`."""

from recsparse.kernels import cache as cache
