//! The BPF object as other tools see it.

use std::{
    mem::offset_of,
    process::Command,
    time::{Duration, Instant},
};

use anyhow::{Result, ensure};
use guard_common::{
    flow::{
        key::FlowKeyV4,
        state::{Flow, Phase},
        timer::JIFFIES_PER_TICK_SHIFT,
    },
    outcome::{Family, Outcome},
};
use guard_tests::{
    bpffs, build,
    frames::{tcp, udp},
    kernel::Kernel,
    programs::{Entry, FRAGS, Programs},
    setup::Setup,
};
use guard_userspace::bpf::clock::Clock;

/// What a program may take: instructions that the verifier follows, which gives up at a million,
/// and loading takes time long before; and bytes of stack, of which there are 512.
fn budget(program: &str) -> (u32, usize) {
    match program {
        "ingress" | "ingress_frags" => (80_000, 384),
        "egress" => (52_000, 320),
        "egress_last" => (12_000, 320),
        "clock" => (100, 16),
        other => panic!("{other} has no budget"),
    }
}

/// Older verifiers see later that two ways lead to the same: Linux 6.1 followed 68,005 instructions
/// of an egress program of which 6.18 followed 52,653.
fn slack() -> u32 {
    if Kernel::running() < Kernel::new(6, 12) {
        return 2;
    }
    1
}

#[test]
fn the_verifier_has_little_work() -> Result<()> {
    for entry in entries() {
        for (name, info) in Programs::load(entry)?.infos()? {
            let Some(verified) = info.verified_instruction_count() else {
                println!("skipped: this kernel does not tell how much of {name} it verified");
                continue;
            };
            let size = info.size_translated().unwrap_or(0) / 8;
            println!("{name}: {size} instructions, {verified} verified");
            let (most, _) = budget(&name);
            ensure!(verified <= most * slack(), "{name}: {verified} verified");
        }
    }
    Ok(())
}

#[test]
fn programs_keep_to_their_stack() -> Result<()> {
    if Command::new("bpftool").arg("version").output().is_err() {
        println!("skipped: bpftool is not installed");
        return Ok(());
    }
    for entry in entries() {
        let programs = Programs::load(entry)?;
        for (name, info) in programs.infos()? {
            let id = info.id().to_string();
            let mut dump = Command::new("bpftool");
            let text = output(dump.args(["prog", "dump", "xlated", "id", &id]))?;
            ensure!(text.contains("exit"), "{name}: no instructions in {text}");
            let used = stack(&text);
            println!("{name}: {used} bytes of stack");
            let (_, most) = budget(&name);
            ensure!(used <= most, "{name}: {used} bytes of stack");
        }
    }
    Ok(())
}

/// How deep instructions, as bpftool prints them, reach below the frame pointer: in a load or a
/// store, or where an address is made of it, by the next instruction on the same register.
fn stack(instructions: &str) -> usize {
    let below = |text: &str| {
        let digits = text.split(|letter: char| !letter.is_ascii_digit()).next();
        digits.and_then(|digits| digits.parse().ok()).unwrap_or(0)
    };
    let lines: Vec<&str> = instructions.lines().collect();
    let accessed = lines.iter().filter_map(|line| line.split_once("(r10 -"));
    let accessed = accessed.map(|(_, offset)| below(offset));
    let addressed = lines.windows(2).filter_map(|pair| {
        let register = pair[0]
            .strip_suffix(" = r10")?
            .split_whitespace()
            .next_back()?;
        let (_, offset) = pair[1].split_once(&format!("{register} += -"))?;
        Some(below(offset))
    });
    accessed.chain(addressed).max().unwrap_or(0)
}

#[test]
fn the_deepest_access_is_what_a_program_uses_of_its_stack() {
    let instructions = "\
   3: (7b) *(u64 *)(r10 -24) = r1
   4: (bf) r2 = r10
   5: (07) r2 += -40
   6: (07) r3 += -4000
   7: (61) r0 = *(u32 *)(r10 -8)";
    assert_eq!(stack(instructions), 40);
    assert_eq!(stack("   0: (95) exit"), 0);
}

fn entries() -> Vec<Entry> {
    let mut entries = vec![Entry::Whole];
    if !FRAGS.is_missing("XDP on frames in several pieces") {
        entries.push(Entry::Frags);
    }
    entries
}

#[test]
fn the_clock_goes_as_fast_as_it_says() -> Result<()> {
    /// Rates that Linux is usually built for are further apart.
    const OFF: f64 = 0.15;
    const TICKS: u32 = 3;
    const PATIENCE: Duration = Duration::from_secs(10);

    let programs = Programs::load(Entry::Whole)?;
    let clock = Clock::new(programs.program_fd("clock")?.try_clone_to_owned()?)?;
    let began = Instant::now();
    // The moment at which it moves on to a tick after this one.
    let edge = |tick: u32| loop {
        let now = clock.now()?;
        if now != tick {
            return anyhow::Ok((now, Instant::now()));
        }
        ensure!(began.elapsed() < PATIENCE, "the clock stands still");
    };
    let (first, seen) = edge(clock.now()?)?;
    let mut last = (first, seen);
    while last.0 - first < TICKS {
        last = edge(last.0)?;
    }
    let told = clock.millis(last.0 - first) as f64 / 1e3;
    let took = (last.1 - seen).as_secs_f64();
    println!(
        "{} jiffies a second; {told} s by them took {took} s",
        clock.hertz()
    );
    ensure!((told / took - 1.0).abs() < OFF, "{told} s took {took} s");
    Ok(())
}

#[test]
fn bpftool_loads_the_object_and_names_every_field() -> Result<()> {
    if Command::new("bpftool").arg("version").output().is_err() {
        println!("skipped: bpftool is not installed");
        return Ok(());
    }
    let mut programs = Programs::load(Entry::Whole)?;
    programs.reset(Setup::default())?;
    programs.egress(&tcp(40_000, 443).sent(Family::Ipv4))?;
    programs.egress(&udp(40_000, 53).sent(Family::Ipv6))?;
    let folder = bpffs::Folder::new()?;
    for (map, fields) in [
        (
            "state",
            &["config", "epoch", "timeouts", "tcp_established"][..],
        ),
        ("devices", &["name", "forwards", "routes_by", "ipv4"]),
        (
            "flows_tcp4",
            &["local_port", "remote_port", "last_seen", "fin_out"],
        ),
        ("flows_udp6", &["local", "remote", "high", "phase"]),
    ] {
        let path = folder.path().join(map);
        programs.pin(map, &path)?;
        let mut dump = Command::new("bpftool");
        let text = output(dump.args(["map", "dump", "pinned"]).arg(&path))?;
        for field in fields {
            let quoted = format!("\"{field}\"");
            ensure!(text.contains(&quoted), "{map} has no field {field}: {text}");
        }
    }
    if FRAGS.is_missing("loading all programs of the object") {
        return Ok(());
    }
    let mut load = Command::new("bpftool");
    load.args(["prog", "loadall"])
        .arg(build::object())
        .arg(folder.path().join("all"));
    output(&mut load)?;
    Ok(())
}

fn output(command: &mut Command) -> Result<String> {
    let output = command.output()?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    ensure!(
        output.status.success(),
        "{command:?}: {}{}",
        text(&output.stdout),
        text(&output.stderr)
    );
    Ok(text(&output.stdout))
}

/// An upgrade copies what is in maps of the same name, with keys and values of the same sizes.
#[test]
fn what_maps_of_these_names_and_sizes_hold() {
    let key = format!(
        "local {} remote {} local_port {} remote_port {} protocol {}",
        offset_of!(FlowKeyV4, local),
        offset_of!(FlowKeyV4, remote),
        offset_of!(FlowKeyV4, local_port),
        offset_of!(FlowKeyV4, remote_port),
        offset_of!(FlowKeyV4, protocol),
    );
    let flow = format!(
        "last_seen {} in ticks of {} phase {} fin_in {} fin_out {} reset {}",
        offset_of!(Flow, last_seen),
        1 << JIFFIES_PER_TICK_SHIFT,
        offset_of!(Flow, phase),
        offset_of!(Flow, fin_in),
        offset_of!(Flow, fin_out),
        offset_of!(Flow, reset),
    );
    let phases = [
        Phase::Opening,
        Phase::Established,
        Phase::Datagram,
        Phase::Dns,
        Phase::Multicast,
    ]
    .map(|phase| format!("{phase:?} {}", phase as u8))
    .join(" ");
    let advice = "raise LAYOUT_VERSION, and rename the maps whose keys and values are as long as \
                  they were";
    assert_eq!(
        [key, flow, phases],
        [
            "local 0 remote 4 local_port 8 remote_port 10 protocol 12",
            "last_seen 0 in ticks of 64 phase 4 fin_in 5 fin_out 6 reset 7",
            "Opening 1 Established 2 Datagram 3 Dns 4 Multicast 5",
        ],
        "{advice}"
    );

    // The order of the counters: a number, for there is one list of them and no second.
    let mut order = 0xcbf2_9ce4_8422_2325_u64;
    for outcome in Outcome::ALL {
        for byte in format!("{:?} {};", outcome.direction(), outcome.reason()).bytes() {
            order = (order ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        }
    }
    assert_eq!(order, 0xd4aa_ad22_8435_881a, "{advice}");
}
