"""The header by which a manager names the client on whose behalf it asks another manager (RFC 7239, section 4)."""


def forwarded_for(address: str) -> str:
    """Return the header's value; an IPv6 address is in brackets and quotes (RFC 7239, section 6)."""
    return f'for="[{address}]"' if ":" in address else f"for={address}"


def address_in(value: str) -> str:
    """Return the address in a header's value; empty if there is none."""
    name, _, address = value.partition("=")
    return address.strip('"').strip("[]") if name == "for" else ""
