"""Craft frames from a scapy expression, for `lbmux replay` and the lab.

An expression is a restricted piece of Python: layers that scapy knows (`IP(dst="192.0.2.1")`), `/` between them, and
literals.  It is parsed with `ast` and evaluated here; anything else is refused, so an expression cannot run code.
Scapy's ranges work: `sport=(1000, 1009)` is ten ports, `dst="192.0.2.0/30"` four addresses, a list its elements.
Scapy is imported only when an expression is evaluated.  No daemon imports this module.
"""

import ast
import logging
from collections.abc import Iterator, Sequence
from importlib import import_module
from ipaddress import ip_network
from itertools import chain, cycle, islice
from typing import Any

from lbmux.errors import LbmuxError

SCAPY_MODULES = ("l2", "inet", "inet6", "dns", "vxlan", "ppp")
"""The layers that an expression may name: those of scapy.layers.* in these modules, and Raw."""
COMMON = ("Ether", "Dot1Q", "ARP", "IP", "IPv6", "TCP", "UDP", "ICMP", "GRE", "DNS", "VXLAN", "Raw")
SOURCE_MAC, DESTINATION_MAC = "02:00:00:00:00:01", "02:00:00:00:00:02"
SOURCE, SOURCE6 = "198.51.100.1", "2001:db8:ffff::1"
DEFAULTS = {
    "Ether": {"src": SOURCE_MAC, "dst": DESTINATION_MAC},
    "ARP": {"hwsrc": SOURCE_MAC, "psrc": SOURCE},
    "IP": {"src": SOURCE},
    "IPv6": {"src": SOURCE6},
}
"""Defaults for fields that scapy would fill in from this machine's routes, or by asking the network."""
MOST_CHARACTERS = 10_000
MOST_FRAMES = 1_000_000
NAMED_FIELDS = 12


class CraftError(LbmuxError):
    """``expression`` does not describe a frame; ``reason`` names the part that is refused."""

    expression: str
    reason: str

    def __str__(self) -> str:
        return f"{self.expression!r}: {self.reason}"


def craft(expressions: Sequence[str], count: int | None = None) -> Iterator[bytes]:
    """Yield Ethernet frames, the expressions in order, each with all packets of its ranges.

    ``count``: yield this many, and start again from the first expression when all have been used; default each once.
    CraftError at once for an expression that is refused; while iterating for a packet that scapy cannot build, and
    after MOST_FRAMES frames where no ``count`` is given.
    """
    parsed = [Expression(text) for text in expressions]
    if count is not None:
        return islice(chain.from_iterable(each.frames() for each in cycle(parsed)), count)
    return chain.from_iterable(each.frames(MOST_FRAMES) for each in parsed)


class Expression:
    """One expression, evaluated to a scapy packet that may stand for several."""

    def __init__(self, text: str) -> None:
        """Raise CraftError if it is refused."""
        self.text = text
        self._layers = _layers()
        self._packet = self._evaluate(self._parse())
        if not isinstance(self._packet, self._layers["Raw"].__mro__[1]):
            raise self._error("not a packet: begin with a layer, as in IP(dst='192.0.2.1')")
        if self._packet.name not in ("Ethernet", "802.3", "ARP", "IP", "IPv6"):
            raise self._error(f"begins with {type(self._packet).__name__}: begin with Ether, ARP, IP or IPv6")
        self._fill_in()

    def _error(self, reason: str) -> CraftError:
        return CraftError(self.text, reason)

    def _parse(self) -> ast.expr:
        if len(self.text) > MOST_CHARACTERS:
            raise CraftError(self.text[:40] + "...", f"longer than {MOST_CHARACTERS} characters")
        try:
            return ast.parse(self.text.strip(), mode="eval").body
        except SyntaxError as error:
            raise self._error(f"syntax error at column {error.offset}: {error.msg}") from error
        except (ValueError, RecursionError, MemoryError) as error:
            raise self._error(f"cannot be parsed: {error}") from error

    def _evaluate(self, node: ast.expr) -> Any:
        """Return the value of a node: a packet, or a literal."""
        if isinstance(node, ast.Constant) and not isinstance(node.value, complex):
            return node.value
        if isinstance(node, ast.Tuple | ast.List):
            values = [self._evaluate(each) for each in node.elts]
            return tuple(values) if isinstance(node, ast.Tuple) else values
        if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
            value = self._evaluate(node.operand)
            if type(value) in (int, float):
                return -value
        if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Div):
            return self._stack(self._evaluate(node.left), self._evaluate(node.right))
        if isinstance(node, ast.Call):
            return self._call(node)
        raise self._error(f"{ast.unparse(node)!r} is not allowed: use layers with named fields, / and literals only")

    def _stack(self, lower: Any, upper: Any) -> Any:
        if not hasattr(lower, "fields_desc") or not (hasattr(upper, "fields_desc") or isinstance(upper, str | bytes)):
            raise self._error("/ puts a layer, a string or bytes on top of a layer")
        return lower / upper

    def _call(self, node: ast.Call) -> Any:
        if not isinstance(node.func, ast.Name) or node.func.id not in self._layers:
            raise self._error(f"{ast.unparse(node.func)!r} is not a layer; layers are {', '.join(COMMON)} and the like")
        name = node.func.id
        if node.args:
            raise self._error(f"{name} takes named fields only, as in TCP(dport=80)")
        layer = self._layers[name]
        known = {field.name: field for field in layer.fields_desc}
        fields: dict[str, Any] = {}
        for keyword in node.keywords:
            if keyword.arg is None or keyword.arg not in known:
                named = ", ".join([*known][:NAMED_FIELDS]) or "none"
                raise self._error(f"{name} has no field {keyword.arg or '**'}: its fields are {named}")
            fields[keyword.arg] = self._evaluate(keyword.value)
            self._check_address(name, known[keyword.arg], fields[keyword.arg])
        try:
            return layer(**fields)
        except Exception as error:  # a field's parser can raise anything
            raise self._error(f"{name}: {_one_line(error)}") from error

    def _check_address(self, layer: str, field: Any, value: Any) -> None:
        """Refuse a host name, which scapy would look up in DNS."""
        from scapy.fields import IP6Field, IPField

        if isinstance(value, list | tuple):
            for each in value:
                self._check_address(layer, field, each)
            return
        inner = getattr(field, "fld", getattr(field, "field", field))  # scapy wraps some fields
        if isinstance(inner, IPField | IP6Field) and isinstance(value, str):
            try:
                ip_network(value, strict=False)
            except ValueError as error:
                raise self._error(f"{layer}: {field.name}: {error}") from error

    def _fill_in(self) -> None:
        """Set what scapy would take from this machine, so that an expression gives the same frames everywhere."""
        from scapy.layers.l2 import Ether

        if self._packet.name not in ("Ethernet", "802.3"):
            self._packet = Ether() / self._packet
        layer = self._packet
        while layer:
            for name, value in DEFAULTS.get(type(layer).__name__, {}).items():
                layer.fields.setdefault(name, value)
            layer = layer.payload

    def frames(self, most: int | None = None) -> Iterator[bytes]:
        """Each packet of the ranges as a frame; raise CraftError if scapy cannot build one, or after ``most``."""
        packets = 0
        for packet in self._packet:
            if packets == most:
                raise self._error(f"stands for more than {most} packets: take some of them with --count")
            packets += 1
            try:
                yield bytes(packet)
            except Exception as error:  # fields raise anything from struct.error to OSError
                raise self._error(f"cannot be built: {_one_line(error)}") from error
        if not packets:
            raise self._error("stands for no packet: a field has an empty list")


def _one_line(error: Exception) -> str:
    return " ".join(str(error).partition("To inject")[0].split()) or type(error).__name__


def _layers() -> dict[str, Any]:
    """Scapy's layer classes by their names."""
    logging.getLogger("scapy").setLevel(logging.ERROR)  # otherwise scapy warns about routes, which are not used
    from scapy.packet import Packet, Raw

    modules = [import_module(f"scapy.layers.{name}") for name in SCAPY_MODULES]
    layers: dict[str, Any] = {
        name: value
        for module in modules
        for name, value in vars(module).items()
        if isinstance(value, type) and issubclass(value, Packet) and value is not Packet and not name.startswith("_")
    }
    return layers | {"Raw": Raw}
