//! One observation as an OpenMetrics exposition.

mod series;

use std::{
    fmt,
    sync::Arc,
    time::{Duration, SystemTime},
};

use guard_common::outcome::{Decision, Family, Outcome, Protocol, Tally, Verdict};
use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeMetric, text},
    metrics::{MetricType, counter::ConstCounter, gauge::ConstGauge},
    registry::Registry,
};

use self::series::FrameSums;
use crate::{
    api::snapshot::{LoadedConfig, Snapshot},
    config::Mode,
    host::{
        port_use::{ByProtocol, PortSummary},
        process_usage::ProcessUsage,
    },
};

/// The content type of what [`exposition`] returns.
pub const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Renders `observation`, after `read_failures` maps could not be read since the start.
///
/// # Errors
/// When the encoder refuses a name, which a test rules out.
pub fn exposition(observation: Arc<Snapshot>, read_failures: u64) -> Result<String, fmt::Error> {
    let mut registry = Registry::default();
    registry.register_collector(Box::new(Scrape {
        observation,
        read_failures,
    }));
    let mut text = String::new();
    text::encode(&mut text, &registry)?;

    // The encoder writes infinity as Rust does, and OpenMetrics otherwise.
    Ok(text.replace(" inf\n", " +Inf\n"))
}

const fn rescues(observation: &Snapshot) -> [(&'static str, u64); 2] {
    [
        ("absent", observation.tallies.of(Tally::RescuedAbsent)),
        ("expired", observation.tallies.of(Tally::RescuedExpired)),
    ]
}

/// Frames that monitor mode let through although enforcing would have cut a socket of this host.
const fn would_drop_live(observation: &Snapshot) -> [(&'static str, u64); 2] {
    [
        (
            "connected",
            observation.tallies.of(Tally::WouldDropConnected),
        ),
        ("listener", observation.tallies.of(Tally::WouldDropListener)),
    ]
}

#[derive(Debug)]
struct Scrape {
    observation: Arc<Snapshot>,
    read_failures: u64,
}

impl Collector for Scrape {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let Self {
            observation,
            read_failures,
        } = self;

        encode_packets(observation, &mut encoder)?;
        encode_state(observation, &mut encoder)?;
        encode_attachments(observation, &mut encoder)?;
        counters(
            &mut encoder,
            "portguard_rescues",
            "Flows put back because the kernel has a connected socket, by the state of their entry",
            rescues(observation).map(|(cause, count)| ([("cause", cause)], count)),
        )?;
        counters(
            &mut encoder,
            "portguard_would_drop_live",
            "Frames for a live socket that monitor mode passed and enforce mode would drop",
            would_drop_live(observation).map(|(socket, count)| ([("socket", socket)], count)),
        )?;
        single(
            &mut encoder,
            "portguard_failed_sweeps",
            "Sweeps over flows and sockets that have failed; until one succeeds, unused ports look used",
            &ConstCounter::new(observation.failed_sweeps),
        )?;
        if let Some(took) = observation.sweep_took {
            single(
                &mut encoder,
                "portguard_sweep_duration_seconds",
                "How long the last sweep over flows and sockets took",
                &ConstGauge::new(took.as_secs_f64()),
            )?;
        }
        if let Some(ports) = &observation.ports {
            encode_ports(ports, &mut encoder)?;
        }
        single(
            &mut encoder,
            "portguard_read_failures",
            "Maps that could not be read for a scrape or a status",
            &ConstCounter::new(*read_failures),
        )?;
        if let Some(process) = &observation.process {
            encode_process(process, &mut encoder)?;
        }
        gauges(
            &mut encoder,
            "portguard_mode_info",
            "Always 1; the label names what is done with what would be dropped",
            [([("mode", mode(observation.mode))], 1)],
        )?;
        encode_config(&observation.config, &mut encoder)?;
        gauges(
            &mut encoder,
            "portguard_build_info",
            "Always 1; the label names the running version",
            [([("version", env!("CARGO_PKG_VERSION"))], 1)],
        )
    }
}

fn encode_packets(observation: &Snapshot, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
    let mut metric = encoder.encode_descriptor(
        "portguard_packets",
        "Frames by what was done with them and why; each is counted once per direction",
        None,
        MetricType::Counter,
    )?;
    for (device, tally) in FrameSums::by_device(observation) {
        for (decision, verdict) in all_series() {
            let frames = tally.frames(decision, verdict);
            if frames == 0 && !series::exists(decision, verdict, observation.mode) {
                continue;
            }
            let labels = [
                ("device", device),
                ("direction", decision.outcome.direction().label()),
                ("family", decision.family.label()),
                ("protocol", decision.protocol.label()),
                ("verdict", verdict.label()),
                ("reason", decision.outcome.reason()),
            ];
            ConstCounter::new(frames).encode(metric.encode_family(&labels)?)?;
        }
    }

    Ok(())
}

/// Every combination of labels, whether it can occur or not.
fn all_series() -> impl Iterator<Item = (Decision, Verdict)> {
    Outcome::ALL.iter().flat_map(|&outcome| {
        Verdict::ALL.into_iter().flat_map(move |verdict| {
            Family::ALL.into_iter().flat_map(move |family| {
                Protocol::ALL.into_iter().map(move |protocol| {
                    let decision = Decision {
                        outcome,
                        family,
                        protocol,
                    };
                    (decision, verdict)
                })
            })
        })
    })
}

fn encode_state(observation: &Snapshot, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
    let flow_labels = |family: Family, protocol: Protocol| {
        [("family", family.label()), ("protocol", protocol.label())]
    };

    gauges(
        encoder,
        "portguard_port_range",
        "First and last port of the guarded range",
        [
            ([("bound", "first")], u64::from(observation.range.first())),
            ([("bound", "last")], u64::from(observation.range.last())),
        ],
    )?;
    gauges(
        encoder,
        "portguard_flows",
        "Flows in the map that have not expired; UDP-Lite is among udp",
        observation
            .flows
            .iter()
            .map(|map| (flow_labels(map.family, map.protocol), map.live)),
    )?;
    gauges(
        encoder,
        "portguard_flows_capacity",
        "Flows there is room for",
        observation
            .flows
            .iter()
            .map(|map| (flow_labels(map.family, map.protocol), map.capacity)),
    )?;
    single(
        encoder,
        "portguard_blocked_listeners",
        "Sockets that listen on a guarded port, which others cannot reach",
        &ConstGauge::new(observation.listeners.len()),
    )?;
    single(
        encoder,
        "portguard_alarms",
        "Things that are wrong with the guard at this moment; portguard status names them",
        &ConstGauge::new(observation.alarms.len()),
    )
}

fn encode_attachments(observation: &Snapshot, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
    let interfaces = &observation.interfaces;

    gauges(
        encoder,
        "portguard_attached",
        "1 where the program is attached to the interface, else 0",
        interfaces.iter().flat_map(|interface| {
            let device = interface.interface.as_str();
            [
                ("xdp", interface.xdp.is_some()),
                ("egress", interface.egress.is_some()),
            ]
            .map(|(hook, attached)| ([("device", device), ("hook", hook)], u64::from(attached)))
        }),
    )?;
    counters(
        encoder,
        "portguard_unseen_packets",
        "Packets that the interface counted while the program at the hook saw none at all",
        interfaces.iter().flat_map(|interface| {
            let device = interface.interface.as_str();
            let received = interface
                .guarded
                .then_some(("xdp", interface.received.unseen));
            let hooks = received
                .into_iter()
                .chain([("egress", interface.sent.unseen)]);
            hooks.map(move |(hook, unseen)| ([("device", device), ("hook", hook)], unseen))
        }),
    )?;
    gauges(
        encoder,
        "portguard_xdp_mode_info",
        "Always 1; the label names where the XDP program runs: native in the driver, or generic",
        interfaces.iter().filter_map(|interface| {
            let mode = interface.xdp?.label();
            Some((
                [("device", interface.interface.as_str()), ("mode", mode)],
                1,
            ))
        }),
    )
}

/// What of the kernel's port range was in use at the last sweep.
fn encode_ports(ports: &PortSummary, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
    let states = [
        ("available", ports.available),
        ("in_use", ports.in_use),
        ("listening", ports.listening),
        (
            "reserved",
            ByProtocol {
                tcp: ports.reserved,
                udp: ports.reserved,
            },
        ),
    ];
    let counts = states
        .into_iter()
        .flat_map(|(state, count)| [("tcp", state, count.tcp), ("udp", state, count.udp)]);
    gauges(
        encoder,
        "portguard_ports",
        "Ports of the kernel's range by what they are; those listening and in time_wait are in use",
        counts
            .chain([("tcp", "time_wait", ports.time_wait)])
            .map(|(protocol, state, count)| {
                ([("protocol", protocol), ("state", state)], u64::from(count))
            }),
    )?;
    let by_protocol = |counts: ByProtocol<f64>| [("tcp", counts.tcp), ("udp", counts.udp)];
    floats(
        encoder,
        "portguard_busiest_destination_ratio",
        "Share of the range in use towards the destination that uses the most",
        by_protocol(ports.busiest),
    )?;
    let seconds = |left: Option<Duration>| left.map_or(f64::INFINITY, |left| left.as_secs_f64());
    floats(
        encoder,
        "portguard_exhaustion_seconds",
        "Until a destination has no port left at the rate of the last minutes; +Inf if none are taken",
        by_protocol(ByProtocol {
            tcp: seconds(ports.exhausted_in.tcp),
            udp: seconds(ports.exhausted_in.udp),
        }),
    )
}

/// One gauge family with a fraction for each protocol.
fn floats(
    encoder: &mut DescriptorEncoder<'_>,
    name: &str,
    help: &str,
    samples: [(&'static str, f64); 2],
) -> fmt::Result {
    let mut metric = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
    for (protocol, value) in samples {
        ConstGauge::new(value).encode(metric.encode_family(&[("protocol", protocol)])?)?;
    }

    Ok(())
}

/// What is done with what would be dropped, as `mode` names it.
const fn mode(mode: Mode) -> &'static str {
    match mode {
        Mode::Enforce => "enforce",
        Mode::Monitor => "monitor",
    }
}

/// The names are like those of Prometheus itself.
fn encode_config(config: &LoadedConfig, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
    gauges(
        encoder,
        "portguard_config_info",
        "Always 1; the label tells configurations in force apart",
        [([("hash", config.hash.as_str())], 1)],
    )?;
    single(
        encoder,
        "portguard_config_last_reload_successful",
        "1 if the configuration file was taken when it was last read, else 0",
        &ConstGauge::new(u64::from(config.last_reload_successful)),
    )?;
    let read = config.read.duration_since(SystemTime::UNIX_EPOCH);
    single(
        encoder,
        "portguard_config_last_reload_success_timestamp_seconds",
        "When the configuration was last taken, in seconds since 1970",
        &ConstGauge::new(read.unwrap_or_default().as_secs_f64()),
    )
}

/// The names are those of Prometheus' own libraries.
fn encode_process(process: &ProcessUsage, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
    single(
        encoder,
        "process_cpu_seconds",
        "Processor time of the daemon, in seconds",
        &ConstCounter::new(process.cpu_seconds),
    )?;
    single(
        encoder,
        "process_start_time_seconds",
        "When the daemon was started, in seconds since 1970",
        &ConstGauge::new(process.start_seconds),
    )?;
    let gauges = [
        (
            "process_resident_memory_bytes",
            "Memory of the daemon in RAM, without maps of the programs",
            Some(process.resident_bytes),
        ),
        (
            "process_virtual_memory_bytes",
            "Address space of the daemon",
            Some(process.virtual_bytes),
        ),
        (
            "process_open_fds",
            "Descriptors that the daemon has open",
            Some(process.open_fds),
        ),
        (
            "process_max_fds",
            "Descriptors that the daemon may have open",
            process.max_fds,
        ),
        (
            "process_threads",
            "Threads of the daemon",
            Some(process.threads),
        ),
    ];
    for (name, help, value) in gauges {
        if let Some(value) = value {
            single(encoder, name, help, &ConstGauge::new(value))?;
        }
    }

    Ok(())
}

/// A family of one, without labels.
fn single(
    encoder: &mut DescriptorEncoder<'_>,
    name: &str,
    help: &str,
    value: &impl EncodeMetric,
) -> fmt::Result {
    value.encode(encoder.encode_descriptor(name, help, None, value.metric_type())?)
}

/// One counter family; the encoder appends `_total` to `name`.
fn counters<'a, const N: usize>(
    encoder: &mut DescriptorEncoder<'_>,
    name: &str,
    help: &str,
    samples: impl IntoIterator<Item = ([(&'static str, &'a str); N], u64)>,
) -> fmt::Result {
    let mut metric = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
    for (labels, value) in samples {
        ConstCounter::new(value).encode(metric.encode_family(&labels)?)?;
    }

    Ok(())
}

/// One gauge family.
fn gauges<'a, const N: usize>(
    encoder: &mut DescriptorEncoder<'_>,
    name: &str,
    help: &str,
    samples: impl IntoIterator<Item = ([(&'static str, &'a str); N], u64)>,
) -> fmt::Result {
    let mut metric = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
    for (labels, value) in samples {
        ConstGauge::new(value).encode(metric.encode_family(&labels)?)?;
    }

    Ok(())
}

#[cfg(test)]
mod tests;
