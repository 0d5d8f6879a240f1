"""A mux's side of `take_over`: it offers its own overrides to the primary before the pool's state replaces them."""

import ssl

import aiohttp
from pydantic import ValidationError

from lbmux.bgp.announced import UNCHANGED
from lbmux.manager.api_models import LocalOverridesRequest, TakenOver
from lbmux.manager.documents import StoredOverrides
from lbmux.manager.route_overrides import commands_at, in_force

ANSWER_S = 5.0


async def hand_over(
    url: str, tls: ssl.SSLContext, local: LocalOverridesRequest, stored: StoredOverrides, node: str
) -> bool:
    """Return whether the pool's state, with the overrides ``stored``, may replace those of the mux ``node`` now.

    False: a newer state has them, or there is no primary yet; in both cases another state follows.
    """
    body = local.model_dump_json(exclude=None if local.routes else {"routes"})  # earlier versions do not know it
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
    return bool(answer.conflicts) or (not answer.taken and _has_all(stored, local, node))


def _has_all(stored: StoredOverrides, local: LocalOverridesRequest, node: str) -> bool:
    """Return whether the pool's state has the mux's overrides. The primary takes them over one by one."""
    states = {(one.service, one.backend): one for one in stored.overrides}
    for one in local.overrides:
        theirs = states.get((one.service, one.backend))
        state = (None, None) if theirs is None else (theirs.admin_state, theirs.weight)
        if (theirs is None or theirs.added is None) if one.added else state != (one.admin_state, one.weight):
            return False
    commands = commands_at(stored.routes, node)
    return all(commands.get(one.vip, UNCHANGED) == in_force(one.announcement) for one in local.routes)
