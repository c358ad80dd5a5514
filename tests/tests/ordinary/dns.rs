//! N04, N05: names.

use std::fmt::Write as _;

use anyhow::{Context, Result, ensure};
use guard_common::outcome::Outcome::{
    PassKnownFlow, PassLaterFragment, PassNewFlow, PassRefreshedFlow,
};
use guard_tests::{
    clients::{Protocol, Server, moves, run},
    guard::Guard,
    netns::{Direct, Namespace},
    scratch::Scratch,
};

use crate::{MODES, PEERS, guarded};

/// A name server that has `a.test`, and 4 kB of text for `big.test`.
fn name_server(host: &Namespace) -> Result<Server> {
    let mut line = String::from(
        "dnsmasq --keep-in-foreground --conf-file=/dev/null --no-resolv --no-hosts --pid-file= \
         --user=root --group=root --edns-packet-max=4096 --host-record=a.test,192.0.2.7 \
         --txt-record=big.test",
    );
    for number in 0..15 {
        write!(line, ",{number:-<250}")?;
    }
    Server::start(host, &line)?.listening(host, Protocol::Udp, 53)
}

fn ask(guard: &Guard, topology: &Direct, line: &str, fragments: u64) -> Result<()> {
    let ask = || {
        let answer = run(&topology.guarded, line)?;
        let whole = answer.contains("14---") && !answer.contains("WARNING");
        ensure!(whole, "not the whole text: {answer}");
        Ok(())
    };
    if fragments == 0 {
        return moves(guard, &[PassNewFlow, PassKnownFlow], &[], ask);
    }
    guard.expect(
        [
            (PassNewFlow, 1),
            (PassKnownFlow, 1),
            (PassLaterFragment, fragments),
        ],
        ask,
    )
}

#[test]
fn n04_long_answers_arrive_in_fragments_and_over_tcp() -> Result<()> {
    for mode in MODES {
        let topology = Direct::new()?;
        let _server = name_server(&topology.peer)?;
        let guard = guarded(&topology, mode, &[])?;
        for peer in PEERS {
            let query = format!("kdig @{peer} big.test TXT +retry=0 +ignore");
            for (line, fragments) in [
                (format!("{query} +bufsize=4096"), 2),
                (format!("{query} +tcp"), 0),
            ] {
                ask(&guard, &topology, &line, fragments)
                    .with_context(|| format!("N04, {mode}, {line}"))?;
            }
        }
    }
    Ok(())
}

#[test]
fn n05_a_busy_resolver_loses_no_answer() -> Result<()> {
    let scratch = Scratch::new()?;
    let queries = scratch.write("queries", "a.test A\n")?;
    for mode in MODES {
        let topology = Direct::new()?;
        let _server = name_server(&topology.peer)?;
        let guard = guarded(&topology, mode, &[])?;
        for peer in PEERS {
            let line = format!("dnsperf -s {peer} -Q 2000 -l 1 -d {}", queries.display());
            let report = moves(&guard, &[PassKnownFlow, PassRefreshedFlow], &[], || {
                run(&topology.guarded, &line)
            })
            .with_context(|| format!("N05, {mode}, {line}"))?;
            let number = |name| {
                let mut lines = report.lines().map(str::trim);
                let value = lines.find_map(|line| line.strip_prefix(name))?;
                value.split_whitespace().next()?.parse::<u32>().ok()
            };
            let (sent, lost) = (number("Queries sent:"), number("Queries lost:"));
            ensure!(
                sent > Some(1000) && lost == Some(0),
                "N05, {mode}: {report}"
            );
        }
    }
    Ok(())
}
