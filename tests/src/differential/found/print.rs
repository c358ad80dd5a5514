//! A session, printed as the row that makes it.

use std::{fmt, net::IpAddr};

use guard_reference::{
    model::Model,
    policy::{Host, Policy},
    read::{self, Carried, Conversation},
    rules::Rules,
};

use super::{START, plain, take};
use crate::differential::session::{Session, Step};

/// Prints a session as the row that makes it.
impl fmt::Display for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let plain = plain();
        let mut model = Model::new(self.policy.clone(), self.host.clone(), START);
        writeln!(f, "        case(\"say what it is about\")")?;
        policy(f, "policy", &self.policy, &plain.policy)?;
        host(f, &self.host, &plain.host)?;
        for step in &self.steps {
            let decision = take(&mut model, step);
            let due = decision.map_or("", |decision| decision.reason.name());
            match step {
                Step::Receive(frame) => call(f, "receives", frame, due)?,
                Step::Send(frame) => call(f, "sends", frame, due)?,
                Step::Forward(frame) => call(f, "forwards", frame, due)?,
                Step::Wait(ticks) => writeln!(f, "            .waits({ticks})")?,
                Step::Back(ticks) => writeln!(f, "            .goes_back({ticks})")?,
                Step::Sweep(sweeps) => writeln!(f, "            .sweeps({sweeps})")?,
                Step::Mark(purpose, port, epochs) => {
                    let purpose = format!("Purpose::{purpose:?}");
                    writeln!(f, "            .marks({purpose}, {port}, {epochs})")?;
                }
                Step::Reload(new) => policy(f, "reloads", new, &plain.policy)?,
            }
        }
        writeln!(f, "            ,")
    }
}

fn call(f: &mut fmt::Formatter<'_>, verb: &str, frame: &[u8], due: &str) -> fmt::Result {
    writeln!(f, "            // {}", describe(frame, verb != "receives"))?;
    writeln!(f, "            .{verb}(\"{}\", \"{due}\")", hex(frame))
}

macro_rules! differing {
    ($f:expr, $name:literal, $ours:expr, $plain:expr, [$($field:ident),+], [$($list:ident),+]) => {
        $(if $ours.$field != $plain.$field {
            writeln!($f, "                {}.{} = {:?};", $name, stringify!($field), $ours.$field)?;
        })+
        $(if $ours.$list != $plain.$list {
            let texts: Vec<String> = $ours.$list.iter()
                .map(|prefix| format!("{}/{}", prefix.address, prefix.bits))
                .collect();
            writeln!($f, "                {}.{} = prefixes(&{texts:?});", $name, stringify!($list))?;
        })+
    };
}

fn policy(f: &mut fmt::Formatter<'_>, verb: &str, ours: &Policy, plain: &Policy) -> fmt::Result {
    if ours == plain && verb == "policy" {
        return Ok(());
    }
    writeln!(f, "            .{verb}(|policy| {{")?;
    differing!(
        f,
        "policy",
        ours,
        plain,
        [range, by_address, rescue, monitor, timers],
        [trusted]
    );
    for (name, ours, plain) in [
        ("reserved", &ours.reserved, &plain.reserved),
        ("exposed_tcp", &ours.exposed_tcp, &plain.exposed_tcp),
        ("exposed_udp", &ours.exposed_udp, &plain.exposed_udp),
        ("unrecorded", &ours.unrecorded, &plain.unrecorded),
    ] {
        if ours != plain {
            writeln!(f, "                policy.{name} = vec!{ours:?};")?;
        }
    }
    if ours.kernel != plain.kernel {
        let ends = ours.kernel.iter();
        let ends: Vec<_> = ends.map(|(ip, port)| (ip.to_string(), port)).collect();
        writeln!(f, "                policy.kernel = ends(&{ends:?});")?;
    }
    writeln!(f, "            }})")
}

fn host(f: &mut fmt::Formatter<'_>, ours: &Host, plain: &Host) -> fmt::Result {
    if ours == plain {
        return Ok(());
    }
    writeln!(f, "            .host(|host| {{")?;
    differing!(
        f,
        "host",
        ours,
        plain,
        [router, carries, shares, some_forward, routing, room],
        [addresses, local_table]
    );
    writeln!(f, "            }})")
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A frame in a few words, as the reference reads it.
fn describe(frame: &[u8], sent: bool) -> String {
    let rules = Rules::default();
    let packet = match read::link(frame, &rules) {
        Ok(Carried::Ipv4(bytes)) => read::ipv4(bytes, &rules),
        Ok(Carried::Ipv6(bytes)) => read::ipv6(bytes, &rules),
        Ok(Carried::Other) => return "no IP".to_owned(),
        Err(broken) => Err(broken),
    };
    let packet = match packet {
        Ok(packet) => packet,
        Err(broken) => return format!("{broken:?}"),
    };
    let end = |(address, port): (IpAddr, u16)| format!("{address} port {port}");
    let ends = match Conversation::of(&packet, sent, &rules) {
        Ok(talk) if sent => format!("{} to {}", end(talk.local), end(talk.remote)),
        Ok(talk) => format!("{} to {}", end(talk.remote), end(talk.local)),
        Err(_) => format!("{} to {}", packet.source, packet.destination),
    };
    format!("protocol {}, {:?}, {ends}", packet.number, packet.part)
}
