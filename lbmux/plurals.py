"""Numbers with their nouns, as people read them: 1 flow, 2 flows."""


def noun(number: float, singular: str, plural: str = "") -> str:
    """The noun's form for a number; ``plural`` where it is not formed with an s."""
    return singular if number == 1 else plural or f"{singular}s"


def counted(number: int, singular: str, plural: str = "") -> str:
    return f"{number} {noun(number, singular, plural)}"
