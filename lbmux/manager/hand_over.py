"""A mux's side of `take_over`: it offers its own overrides to the primary before the pool's state replaces them."""

import ssl
from collections.abc import Sequence

import aiohttp
from pydantic import ValidationError

from lbmux.manager.api_models import LocalOverride, LocalOverridesRequest, TakenOver

ANSWER_S = 5.0


async def hand_over(url: str, tls: ssl.SSLContext, overrides: Sequence[LocalOverride]) -> bool:
    """Return whether the pool's state may replace the overrides now.

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
    return bool(answer.conflicts) or not answer.taken
