"""The maps of `lbmux steer` that the pool's manager keeps: read the current one, and propose the next."""

from pathlib import Path
from typing import Any

from lbmux.manager.api_client import ApiClient, ApiError
from lbmux.manager.map_handlers import MapAnswer, MapRequest, MapsAnswer
from lbmux.manager.map_revisions import MapRevision
from lbmux.steering.map_change import MapChange
from lbmux.steering.steering_map import SteeringMap, from_json
from lbmux.steering.steering_plan import Plan

NOT_FOUND = 404


class ManagerMaps:
    """Asks a manager. All methods raise ApiError if none answers, or it refuses."""

    def __init__(self, client: ApiClient) -> None:
        self.client = client

    def number(self) -> int:
        """Return the number of the current map; 0: there is none."""
        maps = self.client.get("/v1/maps", MapsAnswer, limit=1).maps
        return maps[0].number if maps else 0

    def read(self, number: int | None = None) -> tuple[MapRevision, SteeringMap]:
        """Return a map and its revision, by default the current one."""
        query: dict[str, Any] = {} if number is None else {"revision": number}
        answer = self.client.get("/v1/map", MapAnswer, **query)
        return answer.revision, from_json(answer.map, Path(f"map {answer.revision.number}"))

    def current(self) -> tuple[MapRevision, SteeringMap] | None:
        """Return the current map and its revision; None if there is none."""
        try:
            return self.read()
        except ApiError as error:
            if error.status == NOT_FOUND:
                return None
            raise

    def propose(
        self, plan: Plan | MapChange, base: int, message: str = "", *, restores: int | None = None,
        dry_run: bool = False,
    ) -> MapRevision:  # fmt: skip
        """Make a plan's map the current one, if it was computed from the current one, ``base``.

        ``restores``: the number of the earlier map that it is.
        """
        body = MapRequest(
            map=plan.steering_map.to_json(), base=base, users=plan.users, moved=plan.moved, rtt_ms=plan.rtt_ms,
            rtt_ms_before=plan.rtt_ms_before, message=message, dry_run=dry_run, restores=restores,
        )  # fmt: skip
        return self.client.post("/v1/map", body, MapsAnswer).maps[0]
