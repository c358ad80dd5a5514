//! Everything here that reads bytes from outside, and what must hold whatever they are: for the
//! fuzzer, and for the tests that replay what it has collected.

use std::{collections::BTreeSet, str, sync::atomic::AtomicBool, time::Duration};

use guard_common::frame::transport::Transport;
use netlink_packet_core::ParseableParametrized;
use netlink_packet_route::RouteNetlinkMessage;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, duplex, split},
    runtime,
};

use crate::{
    api::{
        control,
        http::{self, Shared, test_guard::Fake},
    },
    bpf::attach,
    cli::{flows, report},
    config::{Exposed, Settings},
    host::{
        conntrack, interfaces, netlink,
        range::{GuardedPorts, LocalPorts, PortRange, parse_range, parse_reserved},
        sockets, tunnels,
    },
};

/// Reads bytes, and panics where something does not hold.
pub type Target = fn(&[u8]);

/// What reads bytes, by name.
pub const TARGETS: &[(&str, Target)] = &[
    ("sysctl", sysctl),
    ("ports", ports),
    ("configuration", configuration),
    ("control", control),
    ("metrics", metrics),
    ("answer", answer),
    ("sock_diag", sock_diag),
    ("proc_net", proc_net),
    ("rtnetlink", rtnetlink),
    ("conntrack", conntrack),
    ("kernel_ports", tunnels::read_any),
];

/// Both sysctls about local ports: what is understood is understood again as it is printed.
fn sysctl(bytes: &[u8]) {
    let Ok(text) = str::from_utf8(bytes) else {
        return;
    };
    if let Ok(range) = parse_range(text) {
        assert!(0 < range.first() && range.first() <= range.last());
        let again = parse_range(&format!("{}\t{}\n", range.first(), range.last()));
        assert_eq!(again.ok(), Some(range));
    }
    if let Ok(reserved) = parse_reserved(text) {
        let printed: Vec<String> = reserved.iter().map(PortRange::to_string).collect();
        let again = parse_reserved(&printed.join(","));
        assert_eq!(again.ok(), Some(reserved));
    }
}

/// A range, reserved ports and exposed ones, a line each: the bitmaps say what the lists do.
fn ports(bytes: &[u8]) {
    let Ok(text) = str::from_utf8(bytes) else {
        return;
    };
    let mut lines = text.lines();
    let (Some(Ok(range)), Some(Ok(reserved))) = (
        lines.next().map(parse_range),
        lines.next().map(parse_reserved),
    ) else {
        return;
    };
    let exposed: Vec<Exposed> = lines.filter_map(|line| line.parse().ok()).collect();
    let local = LocalPorts { range, reserved };
    let named = exposed
        .iter()
        .map(|exposed| (exposed.transport, exposed.ports));
    let guarded = GuardedPorts::new(&local, named);

    let telling: BTreeSet<u16> = local
        .reserved
        .iter()
        .chain(exposed.iter().map(|exposed| &exposed.ports))
        .chain([&range])
        .flat_map(|ports| [ports.first(), ports.last()])
        .flat_map(|port| [port.saturating_sub(1), port, port.saturating_add(1)])
        .collect();
    for port in telling {
        for transport in [Transport::Tcp, Transport::Udp, Transport::UdpLite] {
            let is_tcp = transport == Transport::Tcp;
            let reserved = local.reserved.iter().any(|ports| ports.contains(port));
            let exposed = exposed.iter().any(|exposed| {
                (exposed.transport == Transport::Tcp) == is_tcp && exposed.ports.contains(port)
            });
            let due = range.contains(port) && !reserved && !exposed;
            assert_eq!(
                guarded.guarded(transport, port),
                due,
                "{transport:?} {port}"
            );
        }
    }
}

/// The configuration file: what is taken is taken again as it is shown.
fn configuration(bytes: &[u8]) {
    let Ok(text) = str::from_utf8(bytes) else {
        return;
    };
    if let Ok(settings) = Settings::parse(text) {
        let mut shown = toml::to_string(&settings).expect("settings are shown as TOML");
        // The range is shown as a table, and written as text.
        if let Some(range) = settings.range {
            let (first, last) = (range.first(), range.last());
            let table = format!("[range]\nfirst = {first}\nlast = {last}\n");
            shown = format!("range = \"{first}-{last}\"\n{}", shown.replace(&table, ""));
        }
        match Settings::parse(&shown) {
            Ok(again) => assert_eq!(again, settings, "{shown}"),
            Err(failure) => panic!("{failure:?} of\n{shown}"),
        }
    }
}

/// What a client writes to the control socket.
fn control(bytes: &[u8]) {
    talk(bytes, |shared| {
        let (asked, _) = tokio::sync::mpsc::channel(1);
        let readers = control::Readers::new(shared, 4);
        control::routes(readers, asked, control::Peer::default())
    });
}

/// What a client writes to the port of the metrics.
fn metrics(bytes: &[u8]) {
    talk(bytes, http::routes);
}

/// Answers a client that writes these bytes, and then waits. The answer is HTTP, or nothing.
fn talk(bytes: &[u8], routes: impl FnOnce(Shared) -> axum::Router) {
    const ROOM: usize = 1 << 20;

    let fake = Fake {
        flows: Some(3),
        guarded: AtomicBool::new(true),
        ..Fake::default()
    };
    let (_, shared) = fake.shared();
    // Nothing is waited for: where all tasks wait, the clock goes on to what they wait for.
    let mut runtime = runtime::Builder::new_current_thread();
    let runtime = runtime.enable_all().start_paused(true).build();
    let runtime = runtime.expect("a runtime");
    let heard = runtime.block_on(async {
        let (ours, theirs) = duplex(ROOM);
        let (mut reader, mut writer) = split(ours);
        let answered = http::connections::answer_once(theirs, routes(shared), TIME);
        let said = async {
            writer.write_all(bytes).await.expect("there is room");
            let mut heard = Vec::new();
            // Where the connection is cut, it is cut.
            let _ = reader.read_to_end(&mut heard).await;
            heard
        };
        tokio::join!(answered, said).1
    });
    assert!(
        heard.is_empty() || heard.starts_with(b"HTTP/1."),
        "{:?}",
        String::from_utf8_lossy(&heard)
    );
}

/// Time for an answer.
const TIME: Duration = Duration::from_secs(2);

/// What answers on the control socket, which may be another version: it is printed, or refused.
fn answer(bytes: &[u8]) {
    report::print_answer(bytes);
    flows::print_answer(bytes);
}

/// A datagram of sock_diag.
fn sock_diag(bytes: &[u8]) {
    let _ = netlink::read(bytes, &mut |kind, payload: &[u8]| {
        sockets::read_diag(kind, payload, Transport::Tcp).map(drop)
    });
}

/// A table of /proc/net.
fn proc_net(bytes: &[u8]) {
    if let Ok(text) = str::from_utf8(bytes) {
        for transport in [Transport::Tcp, Transport::Udp] {
            let _ = sockets::read_proc_net(text, transport);
        }
    }
}

/// A datagram of rtnetlink: links, addresses, routes and filters.
fn rtnetlink(bytes: &[u8]) {
    let _ = netlink::read(bytes, &mut |kind, payload: &[u8]| {
        let _ = attach::read_filter(payload).map(|filter| filter.ours());
        if let Ok(message) = RouteNetlinkMessage::parse_with_param(payload, kind) {
            interfaces::read_any(&message);
        }
        Ok(())
    });
}

/// A datagram of ctnetlink.
fn conntrack(bytes: &[u8]) {
    let _ = netlink::read(bytes, &mut |kind, payload: &[u8]| {
        if let Some(tracked) = conntrack::read(kind, payload)? {
            assert_eq!(tracked.local.is_ipv4(), tracked.remote.is_ipv4());
            let _ = tracked.is_translated();
            let _ = tracked.tcp.flow(0);
        }
        Ok(())
    });
}

#[cfg(test)]
mod tests {
    use std::{fs, path::Path};

    use super::*;

    /// What the fuzzer has collected, and whatever has ever broken something.
    #[test]
    fn what_was_collected_breaks_nothing() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/corpus");
        for (name, target) in TARGETS {
            let folder = folder.join(name);
            let files = fs::read_dir(&folder);
            let files = files.unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
            let mut count = 0;
            for file in files {
                let path = file.expect("a file").path();
                println!("{}", path.display());
                target(&fs::read(&path).expect("it can be read"));
                count += 1;
            }
            assert!(count > 0, "{} is empty", folder.display());
        }
    }
}
