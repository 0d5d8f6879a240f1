"""A mux's side of `take_over`: it offers its own overrides to the primary before the pool's state replaces them."""

import ssl
from collections.abc import Sequence

import aiohttp
from pydantic import ValidationError

from lbmux.manager.api_models import LocalOverride, LocalOverridesRequest, TakenOver
from lbmux.manager.documents import StoredOverrides

ANSWER_S = 5.0


async def hand_over(url: str, tls: ssl.SSLContext, overrides: Sequence[LocalOverride], stored: StoredOverrides) -> bool:
    """Return whether the pool's state, with the overrides ``stored``, may replace the mux's own ones now.

    False: a newer state has them, or there is no primary yet; in both cases another state follows.
    """
    body = LocalOverridesRequest(overrides=tuple(overrides)).model_dump_json()
    try:
        async with (
            aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(ANSWER_S)) as session,
            session.post(f"{url}/v1/local-overrides", data=body, ssl=tls) as response,
        ):
            if response.status != 200:  # 404: the manager is of an older version
                return response.status != 503
            answer = TakenOver.model_validate_json(await response.read())
    except (aiohttp.ClientError, OSError, TimeoutError):
        return False
    except ValidationError:
        return True
    return bool(answer.conflicts) or (not answer.taken and _has_all(stored, overrides))


def _has_all(stored: StoredOverrides, overrides: Sequence[LocalOverride]) -> bool:
    """Return whether the pool's state has the mux's overrides. The primary takes them over one by one."""
    states = {(one.service, one.backend): one for one in stored.overrides}
    for one in overrides:
        theirs = states.get((one.service, one.backend))
        state = (None, None) if theirs is None else (theirs.admin_state, theirs.weight)
        if (theirs is None or theirs.added is None) if one.added else state != (one.admin_state, one.weight):
            return False
    return True
