"""Each part of the bench runs to its end with small sizes; its figures mean nothing."""

from collections.abc import Callable

import pytest

from bench import (
    af_xdp,
    flow_state,
    health,
    kernel,
    latency,
    loading,
    maglev,
    manager,
    manager_elections,
    manager_vips,
    many_services,
    matrix,
    memory,
    reload,
    replay,
    scrape,
    startup,
    trace,
)
from bench.frames import config
from bench.report import Result

Small = Callable[..., None]


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> Small:
    """Other sizes than a part's own."""

    def change(part: object, **sizes: object) -> None:
        for name, value in sizes.items():
            monkeypatch.setattr(part, name, value)

    return change


def ratios(results: list[Result]) -> list[bool]:
    return [result.ratio is None or result.ratio > 0 for result in results if result.value > 0]


def test_startup() -> None:
    assert startup.seconds_to_run("-c", "pass") > 0


def test_memory(small: Small) -> None:
    small(memory, PACKETS=1000)
    value, hits = memory.measured(config(), 64)
    assert value > 0 and hits == 1


@pytest.mark.parametrize("way", memory.WAYS)
def test_other_variants_in_memory(small: Small, way: str) -> None:
    small(memory, PACKETS=100)
    version, more = memory.WAYS[way]
    assert memory.measured(config(version=version, **more), 16, version)[0] > 0  # type: ignore[arg-type]


def test_maglev(small: Small) -> None:
    small(maglev, SIZES={251: "", 503: ""}, BACKENDS=10)
    assert ratios(maglev.run()) == [True, True]


@pytest.mark.slow
def test_replay(small: Small) -> None:
    small(replay, PACKETS=2000, FLOWS=100)
    assert ratios(replay.run()) == [True, True]


@pytest.mark.slow
def test_manager(small: Small) -> None:
    small(manager, SERVICES=2, MUXES=2, CHANGES=2, DEATHS=2, NODES=3, NODE_CHANGES=2, NODE_SERVICES=1)
    small(manager, MANAGERS=3, AGENTS=2, HEALTH_CHANGES_PER_S=20, STEADY_S=1.2)
    results = manager.one_manager() + manager.several_managers() + manager.many_nodes()
    assert len(results) == 17 and all(result.value >= 0 for result in results)


@pytest.mark.slow
def test_manager_elections(small: Small) -> None:
    small(manager_elections, MANAGERS=3, TURNS=1, CASES={"the primary": (False, False, 3000)})
    (result,) = manager_elections.run()
    assert result.value > 0


@pytest.mark.root
def test_manager_vips(small: Small) -> None:
    small(manager_vips, SERVICES=3, BACKENDS=4, VIPS=2, POOLS=((1, 1),))
    assert [result.value > 0 for result in manager_vips.run()] == [True, True]


@pytest.mark.root
def test_many_services(small: Small) -> None:
    """Every service gets its packets, with both drivers."""
    small(many_services, SERVICES=3000)
    *figures, in_user_space, in_kernel = [result.value for result in many_services.run()]
    assert all(figure > 0 for figure in figures) and (in_user_space, in_kernel) == (1, 1)


@pytest.mark.slow
def test_loading(small: Small) -> None:
    small(loading, SERVICES=100)
    assert [result.value > 0 for result in loading.run()] == [True] * 9


@pytest.mark.slow
def test_health(small: Small) -> None:
    small(health, BACKENDS=10, WARM_UP_S=0.2, MEASURED_S=1.5)
    cores, rate, failed = health.prober()
    assert cores > 0 and rate > 0 and failed == 0


def test_trace(small: Small) -> None:
    small(trace, ROUNDS=2, TURNS_S=0.01)
    times_ns = trace.measured(16)
    assert set(times_ns) == {"before", trace.AGAIN, *trace.GOALS} and min(times_ns.values()) > 0


@pytest.mark.root
def test_trace_in_the_kernel(small: Small) -> None:
    small(trace, KERNEL_ROUNDS=1, FLOWS=16)
    small(trace.KernelBed.rate, __defaults__=(64, 0.05, False))
    results = trace.in_kernel()
    assert [result.goal for result in results] == ["", "0.98 to 1.02", "< 1.03"]
    assert ratios(results) == [True] * 3


@pytest.mark.root
def test_scrape(small: Small) -> None:
    small(scrape, SERVICES=4, FLOWS=(1024,), SCRAPES=2, SAMPLES=300, PAUSE_S=0.05, REPETITIONS=1)
    results = scrape.run()
    assert "4 services, 40 backends" in results[0].name
    values = {result.name: result.value for result in results}
    del values["its CPU time in the mux"]  # 0 for such a small scrape: the clock ticks 100 times a second
    assert len(values) == 3 and min(values.values()) > 0


@pytest.mark.root
def test_reload(small: Small) -> None:
    small(reload, BACKENDS=10, SAMPLES=300)
    quiet, busy = reload.run()
    assert ratios([quiet, busy]) == [True, True] and ", 0 reloads" not in busy.name


@pytest.mark.root
def test_latency(small: Small) -> None:
    small(latency, SAMPLES=300)
    assert ratios(latency.run()) == [True, True]


@pytest.mark.root
def test_af_xdp(small: Small) -> None:
    small(af_xdp, ROUNDS=2, REPETITIONS=1, SIZES=(64,))
    results = {result.name.partition(": ")[2] or result.name: result.value for result in af_xdp.run()}
    assert len(results) == 7 and results["AF_PACKET sends"] > 0 and results["AF_XDP sends"] > 0
    lost, segmented = list(results.values())[-2:]
    assert (lost, segmented) == (0, af_xdp.SEGMENTS)


@pytest.mark.root
def test_matrix(small: Small) -> None:
    small(matrix, REPETITIONS=1, FLOWS={"10 flows": 10}, MARKED={"1 slot in 8 marked": 8})
    small(matrix, SERVICES={"1 of 2 services": (2, 1), "2 services": (2, 2)})
    small(flow_state, FRAMES=1000)
    small(kernel, FIRST_FRAMES=1000)
    so_far = list(matrix.so_far())
    assert [len(results) for results in so_far] == [1, 2] and all(result.value > 0 for result in so_far[-1])


@pytest.mark.root
def test_the_matrix_ends_when_its_time_is_over(small: Small) -> None:
    small(matrix, REPETITIONS=1, FLOWS={"10 flows": 10}, SECONDS=0)
    small(flow_state, FRAMES=1000)
    small(kernel, FIRST_FRAMES=1000)
    assert matrix.run() == []
