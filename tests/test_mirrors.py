"""Each module has a test file of its own name in the same place below tests/, or is named here with what covers it."""

from collections import Counter
from pathlib import Path

import pytest

from tests.source_tree import ROOT, files

MODULES = [path for path in files("lbmux") if path.name != "__init__.py"]
ELSEWHERE = {
    "api/refusals.py": "cli/inspect/test_show_command_bgp.py",
    "backends/state_file.py": "backends/test_override_store.py",
    "bgp/exabgp_relay.py": "bgp/test_exabgp.py",
    "bgp/speaker.py": "bgp/test_announcer.py",
    "cli/inspect/capture_command.py": "daemons/test_trace_hub.py",
    "cli/inspect/doctor_command.py": "lab/broken/test_doctor.py",
    "cli/inspect/top_command.py": "daemons/test_top.py",
    "cli/inspect/trace_command.py": "daemons/test_trace_hub.py",
    "cli/inspect/trace_stream.py": "daemons/test_trace_hub.py",
    "cli/lab/lab_command.py": "lab/test_lab.py",
    "cli/lab/lab_run_command.py": "lab/test_board.py",
    "cli/operate/detach_command.py": "daemons/test_survival.py",
    "cli/options.py": "cli/test_main.py",
    "cli/inspect/show_pool_command.py": "cli/pool/test_apply_command.py",
    "cli/pool/join_command.py": "cli/pool/test_manager_command.py",
    "cli/pool/manager_access.py": "cli/pool/test_apply_command.py",
    "cli/run/agent_command.py": "daemons/test_agent_daemon.py",
    "cli/run/bgp_options.py": "lab/test_bgp.py",
    "cli/run/edge_command.py": "daemons/test_edge_daemon.py",
    "cli/run/mux_command.py": "daemons/test_mux_daemon.py",
    "cli/text_table.py": "cli/inspect/test_show_command.py",
    "codegen/compiled.py": "codegen/test_cache.py",
    "codegen/function_cache.py": "codegen/test_cache.py",
    "codegen/pipeline.py": "codegen/test_shortcuts.py",
    "codegen/unoptimised.py": "codegen/test_shortcuts.py",
    "config/address_loops.py": "config/test_models.py",
    "config/field_types.py": "config/test_models.py",
    "config/slowpath_models.py": "config/test_models.py",
    "config/traffic_models.py": "config/test_models.py",
    "daemons/agent_backends.py": "daemons/test_agent_daemon.py",
    "daemons/agent_health.py": "daemons/test_agent_daemon.py",
    "daemons/agent_loop.py": "daemons/test_agent_daemon.py",
    "daemons/agent_path.py": "daemons/test_agent_daemon.py",
    "daemons/agent_slow_path_io.py": "daemons/test_agent_daemon.py",
    "daemons/announcement.py": "daemons/test_forwarding_check.py",
    "daemons/edge_backends.py": "daemons/test_edge_daemon.py",
    "daemons/edge_vips.py": "daemons/test_edge_daemon.py",
    "daemons/egress.py": "daemons/test_two_arms.py",
    "daemons/manager_daemon.py": "cli/pool/test_manager_command.py",
    "daemons/metrics_endpoint.py": "daemons/test_metrics.py",
    "daemons/next_hop_updates.py": "daemons/test_mux_daemon.py",
    "daemons/process.py": "daemons/test_mux_daemon.py",
    "daemons/reply_hold.py": "daemons/test_survival.py",
    "daemons/skeleton.py": "daemons/test_mux_daemon.py",
    "daemons/status_handlers.py": "daemons/test_mux_health_list.py",
    "daemons/tunnel_sockets.py": "daemons/test_agent_daemon.py",
    "datapath/access.py": "datapath/test_mux.py",
    "datapath/context.py": "datapath/test_mux.py",
    "datapath/headers.py": "wire/test_header_layouts.py",
    "datapath/match.py": "tables/test_address_map.py",
    "datapath/memory.py": "datapath/test_branchless.py",
    "datapath/prefilter.py": "targets/bpf/test_tapped_programs.py",
    "datapath/quic.py": "datapath/test_mux_quic.py",
    "frames/batch.py": "frames/test_packet_ring.py",
    "frames/capture_reader.py": "frames/test_compressed.py",
    "frames/captured_frames.py": "frames/test_pcap.py",
    "frames/frame_copy.py": "frames/test_tap_reader.py",
    "frames/memory_fences.py": "frames/test_packet_ring.py",
    "frames/pcapng_blocks.py": "frames/test_pcapng.py",
    "frames/raw_sender.py": "daemons/test_agent_daemon.py",
    "frames/ring_slots.py": "frames/test_packet_ring.py",
    "frames/sendmmsg.py": "frames/test_packet_ring.py",
    "frames/vip_filter.py": "daemons/test_host_forwarding.py",
    "health/agent_health_client.py": "daemons/test_agent_health_client.py",
    "health/probe.py": "health/test_prober.py",
    "health/probe_kinds.py": "health/test_prober.py",
    "lab/bird_router.py": "lab/test_daemons.py",
    "lab/haproxy.py": "lab/test_daemons.py",
    "lab/keepalived.py": "lab/test_daemons.py",
    "lab/namespaces.py": "lab/test_lab.py",
    "lab/processes.py": "lab/test_lab.py",
    "lab/scoreboard/deadline.py": "lab/test_board.py",
    "lab/scoreboard/experiment.py": "lab/test_board.py",
    "lab/scoreboard/flood.py": "lab/test_flood.py",
    "lab/scoreboard/scenarios.py": "lab/test_board.py",
    "lab/scoreboard/scoreboard_events.py": "lab/test_board.py",
    "lab/scoreboard/scoreboard_plot.py": "cli/lab/test_plot_command.py",
    "lab/scoreboard/scoreboard_report.py": "lab/test_board.py",
    "lab/scoreboard/scoreboard_runner.py": "lab/test_board.py",
    "lab/scoreboard/system_under_test.py": "lab/test_board_losses.py",
    "lab/systems/ananta_wide.py": "lab/test_board_losses.py",
    "lab/systems/built_in.py": "lab/test_systems.py",
    "lab/systems/cloudflare.py": "daemons/test_edge_daemon.py",
    "lab/systems/common_nodes.py": "lab/test_systems.py",
    "lab/systems/facebook.py": "lab/test_systems.py",
    "lab/systems/maglev_topology.py": "lab/test_systems.py",
    "lab/systems/seesaw.py": "lab/test_systems.py",
    "lab/test_server.py": "lab/test_lab.py",
    "linux/ethtool.py": "linux/test_offloads.py",
    "linux/network_events.py": "daemons/test_interface_watch.py",
    "linux/probe_routes.py": "daemons/test_tunnel_probes.py",
    "linux/reply_interfaces.py": "daemons/test_two_arms.py",
    "manager/request_access.py": "manager/test_http_server.py",
    "manager/api_client.py": "manager/test_http_server.py",
    "manager/api_handlers.py": "manager/test_http_server.py",
    "manager/api_models.py": "manager/test_openapi.py",
    "manager/connection_limits.py": "manager/test_http_server.py",
    "manager/documents.py": "manager/test_pool.py",
    "manager/endpoints.py": "manager/test_openapi.py",
    "manager/identity.py": "manager/test_admission.py",
    "manager/manager_metrics.py": "manager/test_http_server.py",
    "manager/manager_state.py": "manager/test_http_server.py",
    "manager/store/etcd_store.py": "manager/store/test_store.py",
    "metrics/families.py": "test_metrics_files.py",
    "metrics/loop_histograms.py": "daemons/test_metrics.py",
    "metrics/metrics_server.py": "daemons/test_metrics.py",
    "slowpath/candidates.py": "slowpath/test_second_chance.py",
    "slowpath/slow_path_flow.py": "slowpath/test_icmp_quotes.py",
    "tables/lost_flows.py": "daemons/test_challenge_ack.py",
    "tables/snapshot.py": "tools/test_explain_agent.py",
    "tables/table_limits.py": "tables/test_mux_tables.py",
    "targets/bpf/address_filter.py": "daemons/test_host_forwarding.py",
    "targets/bpf/address_set.py": "daemons/test_host_forwarding.py",
    "targets/bpf/compiler.py": "codegen/test_shortcuts.py",
    "targets/bpf/pins.py": "frames/test_xdp.py",
    "targets/bpf/refusal.py": "frames/test_xdp.py",
    "targets/bpf/ring_buffer.py": "targets/bpf/test_tapped_programs.py",
    "targets/bpf/test_runs.py": "targets/bpf/test_kernel_clock.py",
    "tracing/trace_client.py": "tracing/test_trace_hub.py",
    "tools/backend_states.py": "tools/test_explain_mux.py",
    "tools/bench_plot.py": "cli/lab/test_plot_command.py",
    "tools/doctor/bgp_checks.py": "lab/test_bgp.py",
    "tools/doctor/daemon_checks.py": "tools/doctor/test_in_force.py",
    "tools/doctor/daemon_namespace.py": "lab/broken/test_doctor.py",
    "tools/doctor/finding.py": "tools/doctor/test_kernel_checks.py",
    "tools/doctor/host_checks.py": "lab/broken/test_packets.py",
    "tools/doctor/pool_checks.py": "lab/broken/test_configuration.py",
    "tools/doctor/probe_targets.py": "tools/doctor/test_probe_tunnels.py",
    "tools/doctor/role_guess.py": "tools/doctor/test_node_state.py",
    "tools/doctor/route_checks.py": "lab/broken/test_routing.py",
    "tools/doctor/run_checks.py": "lab/broken/test_doctor.py",
    "tools/dry_run.py": "tools/test_explain_mux.py",
    "tools/metrics_page.py": "docs/test_metrics.py",
    "tools/packet_text.py": "tools/test_explain_mux.py",
    "tools/parse_reasons.py": "tools/test_explain_agent.py",
    "tools/results.py": "cli/lab/test_plot_command.py",
    "tools/router_twin.py": "tools/test_router_choice.py",
    "tools/simulate/flow_policies.py": "tools/simulate/test_flow_model.py",
    "tools/simulate/random_numbers.py": "tools/simulate/test_flow_scenarios.py",
    "tools/simulate/slot_rule.py": "tools/simulate/test_flow_model.py",
    "tools/slow_path_counters.py": "docs/test_metrics.py",
    "tools/table_copy.py": "tools/test_explain_mux.py",
    "tools/top/rates.py": "tools/top/test_view.py",
    "tools/top/readings.py": "tools/top/test_view.py",
    "tools/web/mux_status.py": "tools/web/test_pool_status.py",
    "tools/web/service_status.py": "tools/web/test_pool_status.py",
    "tools/web/table_view.py": "tools/web/test_web_server.py",
    "tools/web/web_access.py": "tools/web/test_web_server.py",
    "tools/web/web_routers.py": "tools/web/test_pool_status.py",
    "wire/icmp_types.py": "slowpath/test_icmp_errors.py",
    "wire/numbers.py": "wire/test_header_layouts.py",
}


def own_test(module: Path) -> Path:
    return ROOT / "tests" / module.parent.relative_to("lbmux") / f"test_{module.name}"


def untested() -> set[str]:
    return {str(module.relative_to("lbmux")) for module in MODULES if not own_test(module).exists()}


def test_each_module_has_its_test_file() -> None:
    assert untested() - ELSEWHERE.keys() == set(), "add a test file of its name, or say here what covers it"


def test_no_other_module_is_named_here() -> None:
    assert ELSEWHERE.keys() - untested() == set(), "gone, or has a test file of its own by now"


@pytest.mark.parametrize("test", sorted(set(ELSEWHERE.values())))
def test_the_test_that_covers_a_module_exists(test: str) -> None:
    assert "def test_" in (ROOT / "tests" / test).read_text()


def test_no_two_modules_have_one_name() -> None:
    assert [name for name, count in Counter(module.name for module in MODULES).items() if count > 1] == []
