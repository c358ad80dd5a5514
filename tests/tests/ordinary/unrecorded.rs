//! The control of all rows here: clients are content because what they send is recorded.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use guard_common::outcome::Outcome::{DropNoFlow, PassKnownFlow};
use guard_tests::{
    clients::{Protocol, Server, attempt, moves, run},
    netns::Direct,
};

use crate::{MODES, PEERS, guarded, in_url};

#[test]
fn n00_clients_fail_where_nobody_records_what_they_send() -> Result<()> {
    for mode in MODES {
        let topology = Direct::new()?;
        let (guest, host) = (&topology.guarded, &topology.peer);
        let names = "dnsmasq --keep-in-foreground --conf-file=/dev/null --no-resolv --no-hosts \
                     --pid-file= --user=root --group=root --host-record=a.test,192.0.2.7";
        let _names = Server::start(host, names)?.listening(host, Protocol::Udp, 53)?;
        let chat = "socat TCP6-LISTEN:80,fork,reuseaddr,ipv6only=0 EXEC:date";
        let _chat = Server::start(host, chat)?.listening(host, Protocol::Tcp, 80)?;
        let lines: Vec<String> = PEERS
            .into_iter()
            .flat_map(|peer| {
                [
                    format!("kdig @{peer} a.test +retry=0 +timeout=1"),
                    format!("kdig @{peer} a.test +retry=0 +timeout=1 +tcp"),
                    format!("socat -u TCP:{}:80 -", in_url(peer)),
                ]
            })
            .collect();

        let flags = ["--egress-hook", "clsact", "--no-rescue"];
        let mut guard = guarded(&topology, mode, &flags)?;
        for line in &lines {
            moves(&guard, &[PassKnownFlow], &[], || run(guest, line))
                .with_context(|| format!("{mode}, {line}"))?;
        }

        let before = guard.packets()?;
        // It must not notice, and let go of the interface.
        guard.signal(libc::SIGSTOP);
        run(guest, "tc qdisc del dev vg clsact")?;
        let attempts: Vec<_> = lines
            .iter()
            .map(|line| (line, attempt(guest, Duration::from_millis(1500), line)))
            .collect();
        guard.signal(libc::SIGCONT);
        for (line, output) in attempts {
            let output = output?;
            ensure!(!output.status.success(), "{mode}, {line}: {output:?}");
        }
        let moved = guard.packets()?.since(&before);
        ensure!(moved.of(DropNoFlow) >= 6, "{mode}: dropped only:{moved}");
        ensure!(moved.of(PassKnownFlow) == 0, "{mode}: recorded:{moved}");
    }
    Ok(())
}
