"""Requests of the control socket that had other names: refused, with the new name."""

RENAMED = {
    "order": "override",
    "watch": "trace",
    "outline": "layout",
}
