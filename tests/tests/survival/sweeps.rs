//! Sweeps, which forget the ports that nobody uses. What they must not forget is tried with
//! sweeps that do.

use std::time::Duration;

use anyhow::{Result, ensure};
use guard_common::outcome::{
    Family,
    Outcome::{DropNoFlow, PassKnownFlow, PassRescued},
};
use guard_tests::{
    frames::P,
    guard::Guard,
    metrics,
    netns::Direct,
    peers::{Connection, Exchange, Talk},
    sweeps::{self, FORGOTTEN, PATIENCE},
};
use guard_userspace::{
    bpf::{maps::StateMemory, pins::Pins},
    host::namespace,
};

/// Sweeps in quick succession.
const QUICK: [&str; 2] = ["--sweep-rest", "100"];
/// How often the daemon is asked whether sweeps have failed, and how long that takes: less than it waits
/// for a question.
const QUESTIONS: u32 = 30;
const QUESTION: Duration = Duration::from_millis(130);
/// Long enough for one packet, and for no retransmission.
const ONE_PACKET: Duration = Duration::from_millis(150);

/// A guard that sweeps all the time, without some of its parts.
pub fn altered<'a>(topology: &'a Direct, without: &[&str], flags: &[&str]) -> Result<Guard<'a>> {
    let parts = without.iter().flat_map(|part| ["--without", part]);
    let alterations: Vec<&str> = QUICK.into_iter().chain(parts).collect();
    Guard::start_altered(&topology.guarded, topology.interface(), &alterations, flags)
}

/// As [`sweeps::wait`].
pub fn wait_for_sweeps(topology: &Direct, guard: &Guard) -> Result<()> {
    sweeps::wait(&topology.guarded, guard)
}

/// What becomes of the peer's word on a connection that has been silent for longer than its
/// timer: only the socket shows that the port is in use.
fn idle_connection(without: &[&str]) -> Result<(bool, u64, u64)> {
    let topology = Direct::new()?;
    let (host, peer) = (&topology.guarded, &topology.peer);
    let guard = altered(&topology, without, &["--timeout", "tcp-established=1"])?;
    let server = P.address(Family::Ipv4);
    let mut connection = Connection::open(host, peer, (server, 8080), 1)?.remove(0);
    std::thread::sleep(Duration::from_millis(2_600));
    wait_for_sweeps(&topology, &guard)?;
    connection.speak()?;
    let heard = connection.hears(ONE_PACKET);
    let packets = guard.packets()?;
    Ok((heard, packets.of(PassRescued), packets.of(DropNoFlow)))
}

#[test]
fn the_port_of_an_idle_socket_stays_in_use() -> Result<()> {
    // Else the flow is put back, and the mark is not needed.
    let (heard, rescued, dropped) = idle_connection(&["repair"])?;
    ensure!(heard && dropped == 0, "{dropped} packets were dropped");
    ensure!(rescued == 1, "{rescued} were rescued");
    Ok(())
}

#[test]
fn without_the_marks_of_sockets_it_looks_free() -> Result<()> {
    let (heard, rescued, dropped) = idle_connection(&["repair", "socket-marks"])?;
    ensure!(!heard, "no mechanism but the sweep over sockets keeps it");
    ensure!(rescued == 0 && dropped >= 1, "{rescued}, {dropped}");
    Ok(())
}

/// What becomes of the peer's word to a socket that hears everybody: only the flow shows that the
/// port is in use.
fn unconnected_exchange(without: &[&str]) -> Result<(bool, u64, u64)> {
    let topology = Direct::new()?;
    let (host, peer) = (&topology.guarded, &topology.peer);
    let guard = altered(&topology, without, &[])?;
    let server = P.address(Family::Ipv4);
    let mut exchange = Exchange::open(host, peer, (server, 8081), false, 1)?.remove(0);
    wait_for_sweeps(&topology, &guard)?;
    exchange.speak()?;
    let heard = exchange.hears(ONE_PACKET);
    let packets = guard.packets()?;
    Ok((heard, packets.of(PassKnownFlow), packets.of(DropNoFlow)))
}

#[test]
fn the_port_of_a_flow_stays_in_use() -> Result<()> {
    let (heard, known, dropped) = unconnected_exchange(&[])?;
    ensure!(heard && dropped == 0, "{dropped} packets were dropped");
    ensure!(known == 1, "{known} were known");
    Ok(())
}

#[test]
fn without_the_marks_of_flows_it_looks_free() -> Result<()> {
    let (heard, known, dropped) = unconnected_exchange(&["flow-marks"])?;
    ensure!(!heard, "no mechanism but the sweep over flows keeps it");
    ensure!(known == 0 && dropped == 1, "{known}, {dropped}");
    Ok(())
}

/// How many files a process may have open.
fn limit_files(guard: &Guard, limit: Option<u64>) -> Result<()> {
    let pid = guard.pid() as libc::pid_t;
    let mut limits = libc::rlimit {
        rlim_cur: 0,
        rlim_max: 0,
    };
    let (none, kind) = (std::ptr::null_mut(), libc::RLIMIT_NOFILE);
    // SAFETY: the limits outlive both calls.
    let done = unsafe {
        let read = libc::prlimit(pid, kind, std::ptr::null(), &raw mut limits);
        limits.rlim_cur = limit.unwrap_or(limits.rlim_max);
        read | libc::prlimit(pid, kind, &raw const limits, none)
    };
    ensure!(done == 0, std::io::Error::last_os_error());
    Ok(())
}

/// A daemon that can open nothing for a while cannot list sockets.
#[test]
fn what_sweeps_cannot_see_they_do_not_forget() -> Result<()> {
    let topology = Direct::new()?;
    let (host, peer) = (&topology.guarded, &topology.peer);
    let guard = altered(&topology, &["repair"], &["--timeout", "tcp-established=1"])?;
    let server = P.address(Family::Ipv4);
    let mut exchange = Exchange::open(host, peer, (server, 8081), false, 1)?.remove(0);
    let mut connection = Connection::open(host, peer, (server, 8080), 1)?.remove(0);
    std::thread::sleep(Duration::from_millis(2_600));
    wait_for_sweeps(&topology, &guard)?;

    let namespace = host.run(namespace::name)?;
    let state = StateMemory::open(&Pins::new(guard.pins(), &namespace))?;
    // A daemon that can open nothing accepts nobody, so that all questions are connections before. The
    // last of them is answered: the others were accepted.
    let questions: Vec<_> = (0..QUESTIONS)
        .map(|_| metrics::connect(host))
        .collect::<Result<_>>()?;
    let failed = |samples: &[_]| metrics::sum(samples, "portguard_failed_sweeps_total", &[]);
    ensure!(failed(&guard.scrape()?) == 0, "{}", guard.said());
    limit_files(&guard, Some(3))?;
    let (mut count, mut epoch) = (0, 0);
    for question in questions {
        std::thread::sleep(QUESTION);
        if count == 0 {
            epoch = state.epoch();
        }
        count = failed(&metrics::scrape_by(question)?);
        if count > u64::from(2 * FORGOTTEN) {
            break;
        }
    }
    ensure!(
        count > u64::from(2 * FORGOTTEN),
        "{count} sweeps have failed: {}",
        guard.said()
    );
    let said = guard.said().matches("ports stay marked as in use").count();
    ensure!(said == 1, "{}", guard.said());
    ensure!(state.epoch() == epoch, "a failed sweep moves the epoch");
    exchange.speak()?;
    connection.speak()?;
    let heard = exchange.hears(PATIENCE) && connection.hears(PATIENCE);
    limit_files(&guard, None)?;
    let packets = guard.packets()?;
    ensure!(heard && packets.of(DropNoFlow) == 0, "cut off:{packets}");
    ensure!(packets.of(PassRescued) == 1, "{packets}: {}", guard.said());
    ensure!(!guard.said().contains("not guarded"), "{}", guard.said());
    let status = super::fill::status(&topology, &guard)?;
    ensure!(status.contains("\nsweeps    "), "{status}");
    wait_for_sweeps(&topology, &guard)
}

#[test]
fn without_the_marks_of_tuples_both_look_like_unsolicited_senders() -> Result<()> {
    let (heard, rescued, dropped) = idle_connection(&["repair", "tuple-marks"])?;
    ensure!(
        !heard,
        "nothing but its tuple's mark lets a socket be found"
    );
    ensure!(rescued == 0 && dropped >= 1, "{rescued}, {dropped}");
    let (heard, known, dropped) = unconnected_exchange(&["tuple-marks"])?;
    ensure!(!heard, "nothing but its tuple's mark lets a flow be found");
    ensure!(known == 0 && dropped == 1, "{known}, {dropped}");
    Ok(())
}
