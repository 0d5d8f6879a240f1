"""lbmux: a layer-4 load balancer in the family of Ananta, Maglev and Katran."""

__version__ = "0.1.0"
