"""Keys of the configuration that had other names: refused, with the new name."""

RENAMED = {
    "hosts_help": "second_chance",
    "hosts_asked": "second_chance_max_hosts",
}
