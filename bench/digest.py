"""``python -m bench.digest``: prints a digest of each kernel program's instructions, for several table sizes.

Two commits that print the same lines load the same programs into the kernel, however their sources differ.
"""

import hashlib
import re
from pathlib import Path

from lbmux.datapath.tables import Sizes
from lbmux.targets.bpf import objects

PROGRAM = re.compile(r"^def (\w+)\(ctx\):", re.M)
"""The kernel calls a program with its context alone."""
SIZES = {
    "smallest": Sizes(addresses=16, services=4, slots=64, backends=4, buckets=1),
    "default": Sizes(workers=2),
    "large": Sizes(1 << 16, 1 << 14, slots=1 << 22, backends=1 << 16, buckets=1 << 15, workers=8, endpoints=4096),
    "536 MB of flows": Sizes(buckets=1 << 22, workers=2),
}


def programs() -> list[str]:
    """Return all programs as "module:function". Those that record frames for trace clients are in a second module."""
    files = sorted(Path(objects.__file__).parent.glob("*.py"))
    names = [(path.stem, name) for path in files for name in PROGRAM.findall(path.read_text())]
    return [f"{objects.__name__.rpartition('.')[0]}.{module}:{name}" for module, name in names]


def digest(program: str, sizes: Sizes) -> str:
    """Return the digest. Maps are numbered in the order of their use, so their names do not affect it."""
    compiled = objects.compiled(program)
    symbols = list(dict.fromkeys(symbol for _, symbol in compiled.relocations(objects.SECTION)))
    limits = {symbol: getattr(sizes, symbol.removeprefix("lbmux_limit_"), 1) for symbol in symbols}
    maps = {symbol: number for number, symbol in enumerate(symbols) if "_limit_" not in symbol}
    return hashlib.sha256(compiled.program(objects.SECTION, maps, limits)).hexdigest()


def main() -> None:
    lines = []
    for program in programs():
        kind = "shown to trace clients" if program.rpartition(":")[0] != objects.PROGRAMS else "plain"
        for label, sizes in SIZES.items():
            lines.append(f"{program.rpartition(':')[2]} ({kind}), {label}: {digest(program, sizes)}")
    print("\n".join(sorted(lines)))


if __name__ == "__main__":
    main()
