"""Old names of requests of the control socket; they are refused with the new name."""

RENAMED = {
    "order": "override",
    "watch": "trace",
    "outline": "layout",
}
