"""Old names of configuration keys; a file that uses one is refused with the new name."""

RENAMED = {
    "hosts_help": "`second_chance`",
    "hosts_asked": "`second_chance_max_hosts`",
    "trusted_s": "`tcp_s` (of UDP flows: `udp_s`)",
    "closing_s": "`fin_s`",
}
"""Maps the old name to the new one, as an error gives it."""
