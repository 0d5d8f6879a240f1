"""Messages about the pool's view of health: each node gets what it lacks, and a message for many is made once."""

from lbmux.manager.node_messages import View, parse_message
from lbmux.manager.pool_health import HealthView
from lbmux.manager.sent_views import SentViews

UP, DOWN = ("web", "b1", True, "connected"), ("web", "b2", False, "refused")


def test_each_node_gets_what_it_lacks() -> None:
    view, sent = HealthView(), SentViews()
    view.take(3, 1, (UP,))
    view.take(3, 2, (DOWN,), ("web",), (("web", "b1", 7),))
    texts = {known: sent.message(view, known, "p") for known in ((-1, 0), (3, 1))}
    whole, last = (parse_message(text, "p") for text in texts.values())
    assert isinstance(whole, View) and isinstance(last, View)
    assert (whole.lines, last.lines, last.number, last.kept) == ((UP, DOWN), (DOWN,), 2, ("web",))
    assert whole.weights == last.weights == (("web", "b1", 7),)
    assert sent.message(view, (3, 1), "p") is texts[3, 1]
    view.take(3, 3, (UP,))
    assert "refused" not in sent.message(view, (3, 2), "p")
