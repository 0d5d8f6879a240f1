"""Reads a file of another load balancer: detects its format, and imports it."""

import re
from pathlib import Path
from typing import Literal, get_args

from lbmux.errors import ConfigError, Problem
from lbmux.tools.import_config import (
    ipvs_rules,
    keepalived_services,
    keepalived_syntax,
    seesaw_cluster,
    text_protobuf,
)
from lbmux.tools.import_config.imported import Imported

Format = Literal["seesaw", "keepalived", "ipvs"]
FORMATS: tuple[Format, ...] = get_args(Format)
SIGNS: dict[Format, str] = {
    "keepalived": r"^\s*virtual_server(_group)?\s",
    "ipvs": r"^\s*(-A|--add-service)\s",
    "seesaw": r"^\s*(vserver|seesaw_vip|node)\s*:?\s*[<{]",
}
"""Text that begins a line only in files of that format."""


def format_of(text: str) -> Format | None:
    return next((kind for kind, sign in SIGNS.items() if re.search(sign, text, re.MULTILINE)), None)


def read(text: str, path: Path, kind: Format | None = None) -> Imported:
    """Import a file; ``path`` is for messages. Raise ConfigError if nothing in it can be imported."""
    kind = kind or format_of(text)
    if kind == "seesaw":
        imported = seesaw_cluster.convert(text_protobuf.parse(text, path))
    elif kind == "keepalived":
        imported = keepalived_services.convert(keepalived_syntax.parse(text, path))
    elif kind == "ipvs":
        imported = ipvs_rules.convert(ipvs_rules.parse(text, path))
    else:
        raise ConfigError(path, (Problem(None, "", f"is not one of {', '.join(FORMATS)}; see --format"),))
    imported.finish(path)
    return imported
