//! As many encodings as asked for, to both hosts, and the comparison.

use std::{
    fmt, thread,
    time::{Duration, Instant},
};

use anyhow::{Result, bail, ensure};
use guard_common::outcome::{
    Direction,
    Outcome::{self, PassIcmpInfo, PassNotIp},
};

use super::{
    encoding::{Carried, Encoding},
    ends::PEERS,
    generate,
    host::{Delivered, Host},
    policy,
    tally::{ALL, Plan, Tally},
    transport::FORGED,
};
use crate::{differential::random::Random, guard::Guard, metrics::Packets, netns::Direct};

/// Encodings between two looks at what was delivered.
const BATCH: u32 = 256;

/// How often peers are asked anew: before the kernel gives up on a SYN, and UDP flows expire.
const ASK_AGAIN: Duration = Duration::from_secs(40);

/// How long a batch may take to arrive.
const PATIENCE: Duration = Duration::from_secs(2);

/// How long a single packet may take longer than it does where nobody guards.
const SOON: Duration = Duration::from_millis(100);

/// How often a difference must be seen again.
const CONFIRM: usize = 3;

/// Tries it, and tells about the progress.
///
/// # Errors
/// The first packet of an unsolicited sender that is delivered, or of a peer that is not.
pub fn run(plan: &Plan, mut report: impl FnMut(&Tally)) -> Result<Tally> {
    let topologies = [Direct::new()?, Direct::new()?];
    let [guarded, twin] = &topologies;
    let guard = plan
        .mode
        .map(|mode| Guard::start(&guarded.guarded, guarded.interface(), &["--xdp-mode", mode]))
        .transpose()?;
    let mut trial = Trial {
        plan: *plan,
        hosts: [Host::new(guarded)?, Host::new(twin)?],
        next: 0,
        asked: None,
        tally: Tally::default(),
    };
    let before = guard.as_ref().map(Guard::packets).transpose()?;
    let mut random = Random::new(plan.seed);
    while trial.tally.encodings < plan.encodings {
        let count = BATCH.min(plan.encodings - trial.tally.encodings);
        trial.batch(&mut random, count)?;
        report(&trial.tally);
    }
    if let (Some(guard), Some(before)) = (guard, before) {
        counted(&guard, &before, &trial.tally)?;
        ensure!(guard.stop()?.success(), "the daemon ends well");
    }
    Ok(trial.tally)
}

/// Checks that each frame moved one counter.
fn counted(guard: &Guard<'_>, before: &Packets, tally: &Tally) -> Result<()> {
    let moved = guard.packets()?.since(before);
    let sum: u64 = Outcome::ALL
        .iter()
        .filter(|outcome| outcome.direction() == Direction::Ingress)
        // What hosts say to each other unasked, and echoes.
        .filter(|outcome| ![PassIcmpInfo, PassNotIp].contains(outcome))
        .map(|outcome| moved.of(*outcome))
        .sum();
    let Tally { frames, echoes, .. } = *tally;
    let due = frames.saturating_sub(echoes)..=frames;
    ensure!(
        due.contains(&sum) && sum + moved.of(PassIcmpInfo) >= frames,
        "{frames} frames, {echoes} of them with echoes, moved counters by {sum}:{moved}"
    );
    Ok(())
}

struct Trial<'a> {
    plan: Plan,
    /// The guarded one, and its twin.
    hosts: [Host<'a>; 2],
    next: u32,
    asked: Option<Instant>,
    tally: Tally,
}

impl Trial<'_> {
    fn batch(&mut self, random: &mut Random, count: u32) -> Result<()> {
        if self.asked.is_none_or(|asked| asked.elapsed() > ASK_AGAIN) {
            self.ask()?;
        }
        let encodings: Vec<Encoding> = (0..count)
            .map(|_| generate::encoding(random, self.number()))
            .collect();
        let [guarded, twin] = self.exchange(&encodings, PATIENCE)?;
        let mut missing = Vec::new();
        for encoding in &encodings {
            self.tally.encodings += 1;
            let (had, due) = (guarded.copies(encoding.id), twin.copies(encoding.id));
            let forged = guarded.copies(encoding.id | FORGED);
            ensure!(forged == 0, "forged, and delivered: {}", Shown(encoding));
            if due > 0 {
                for name in encoding.features().into_iter().chain([ALL]) {
                    let counts = self.tally.delivered.entry(name).or_default();
                    counts[usize::from(encoding.is_answer())] += 1;
                }
            }
            if !encoding.is_welcome() {
                ensure!(
                    had == 0,
                    "an unsolicited sender's, and delivered: {}",
                    Shown(encoding)
                );
            } else if had < due {
                missing.push(encoding);
            }
        }
        missing
            .into_iter()
            .try_for_each(|encoding| self.explain(encoding))
    }

    /// A difference must be an exception, or not be there again.
    fn explain(&mut self, encoding: &Encoding) -> Result<()> {
        if let Some(exception) = policy::exception(encoding) {
            *self.tally.excepted.entry(exception.name).or_default() += 1;
            return Ok(());
        }
        if !self.differs(encoding)? {
            self.tally.unsteady += 1;
            return Ok(());
        }
        let small = self.shrink(encoding.clone())?;
        bail!("a peer's, and not delivered: {}", Shown(&small))
    }

    /// Whether an encoding is lost on the guarded host each time that it is tried alone.
    fn differs(&mut self, encoding: &Encoding) -> Result<bool> {
        for _ in 0..CONFIRM {
            // Of the same peer, and nobody has seen its number.
            self.next = (self.next / PEERS + 1) * PEERS + encoding.peer();
            let again = Encoding {
                id: self.number(),
                ..encoding.clone()
            };
            let [guarded, twin] = self.exchange(std::slice::from_ref(&again), SOON)?;
            if guarded.copies(again.id) >= twin.copies(again.id) {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// As little of an encoding as is still lost.
    fn shrink(&mut self, mut encoding: Encoding) -> Result<Encoding> {
        const PARTS: [fn(&mut Encoding, Encoding); 13] = [
            |it, plain| it.tags = plain.tags,
            |it, plain| it.link_address = plain.link_address,
            |it, plain| (it.service, it.hops, it.flags) = (plain.service, plain.hops, plain.flags),
            |it, plain| it.options = plain.options,
            |it, plain| it.outer = plain.outer,
            |it, plain| it.inner = plain.inner,
            |it, plain| it.pieces = plain.pieces,
            |it, plain| it.quote = plain.quote,
            |it, plain| it.length_off = plain.length_off,
            |it, plain| it.transport_length = plain.transport_length,
            |it, plain| it.checksum = plain.checksum,
            |it, plain| it.padding = plain.padding,
            |it, plain| it.missing = plain.missing,
        ];
        for part in PARTS {
            let mut smaller = encoding.clone();
            part(&mut smaller, Encoding::plain(0));
            if smaller != encoding && self.differs(&smaller)? {
                encoding = smaller;
            }
        }
        Ok(encoding)
    }

    fn ask(&mut self) -> Result<()> {
        let [guarded, twin] = &mut self.hosts;
        twin.ask()?;
        if self.plan.asks {
            guarded.ask()?;
        }
        self.asked = Some(Instant::now());
        Ok(())
    }

    /// Sends these, and then a plain one: when it has arrived, so have they.
    fn exchange(&mut self, encodings: &[Encoding], patience: Duration) -> Result<[Delivered; 2]> {
        let last = Encoding::plain(self.number());
        let mut frames = Vec::new();
        for encoding in encodings.iter().chain([&last]) {
            let before = frames.len();
            frames.extend(encoding.frames());
            if encoding.carried == Carried::Echo {
                self.tally.echoes += (frames.len() - before) as u64;
            }
        }
        self.tally.frames += frames.len() as u64;
        self.hosts.iter().try_for_each(|host| host.send(&frames))?;

        let mut delivered = [Delivered::default(), Delivered::default()];
        let mut deadline = Instant::now() + PATIENCE;
        loop {
            let [had, due] = delivered.each_ref().map(|to| to.copies(last.id) > 0);
            if due {
                deadline = deadline.min(Instant::now() + patience);
            }
            // Once more when it has come, for what has come by another socket meanwhile.
            for (host, to) in self.hosts.iter().zip(&mut delivered) {
                host.collect(to);
            }
            if (had && due) || Instant::now() > deadline {
                break;
            }
            thread::sleep(Duration::from_micros(50));
        }
        Ok(delivered)
    }

    const fn number(&mut self) -> u32 {
        let number = self.next;
        self.next += 1;
        number
    }
}

/// An encoding and its frames.
struct Shown<'a>(&'a Encoding);

impl fmt::Display for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#?}", self.0)?;
        for frame in self.0.frames() {
            writeln!(f)?;
            frame.iter().try_for_each(|byte| write!(f, "{byte:02x}"))?;
        }
        Ok(())
    }
}
