"""Nouns that agree in number: 1 flow, 2 flows."""


def noun(number: float, singular: str, plural: str = "") -> str:
    """Return the noun in the form that the number takes. ``plural`` is needed if it does not end in an s."""
    return singular if number == 1 else plural or f"{singular}s"


def counted(number: int, singular: str, plural: str = "") -> str:
    return f"{number} {noun(number, singular, plural)}"
