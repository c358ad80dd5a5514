//! The program on an interface that records what is sent: first of all that see it, and a copy
//! that runs last while others stand behind it.

use std::{
    fs, io,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant},
};

use anyhow::Context;
use aya::programs::{SchedClassifier, tc::qdisc_add_clsact};

use super::{
    Attached,
    chain::{Last, OtherProgram, Row, Standing, before_any_filter, is_program, standing},
    clsact::{self, release_clsact, release_those},
    errors::{errno_tc, refused_clsact},
    filter::Ours,
    qdisc::require_room_for_clsact,
    release_pin,
};
use crate::{
    base::failure::Failure,
    bpf::{
        attach::EgressHook,
        pins::{Hook, Pins},
        programs::{ProgramIds, Programs},
        syscalls::{
            self,
            tcx::{self, TcxEnd},
        },
    },
    config,
};

/// How long the kernel may take to free a link.
const FREED: Duration = Duration::from_secs(1);

/// An interface, and where its links are pinned.
#[derive(Clone, Copy, Debug)]
pub struct AttachPoint<'a> {
    /// The interface's name.
    pub name: &'a str,
    /// Its index.
    pub index: u32,
    /// Where links are pinned.
    pub pins: &'a Pins,
}

impl AttachPoint<'_> {
    fn pin(&self, hook: Hook) -> PathBuf {
        self.pins.link(self.index, hook)
    }

    /// The link that is pinned for this hook, if it still holds a program on this interface.
    fn link(&self, hook: Hook) -> Option<OwnedFd> {
        let link = syscalls::open_pin(&self.pin(hook)).ok()?;
        let holds = syscalls::linked(link.as_fd()).is_ok_and(|info| info.interface == self.index);

        holds.then_some(link)
    }

    /// Pins a link in the place of another one, in one step: a link that is pinned nowhere is gone
    /// with this process.
    fn pin_anew(&self, link: BorrowedFd<'_>, hook: Hook) -> anyhow::Result<()> {
        let (passing, pin) = (self.pin(Hook::Moving), self.pin(hook));
        release_pin(&passing)?;
        syscalls::pin(link, &passing)
            .with_context(|| format!("{}: cannot be pinned", passing.display()))?;

        fs::rename(&passing, &pin).with_context(|| format!("{}: cannot be moved", pin.display()))
    }
}

/// How the program is to be attached.
#[derive(Clone, Copy, Debug)]
pub struct EgressRequest {
    /// Where.
    pub hook: config::EgressMode,
    /// Whether it may stand behind what ends the chain before it.
    pub behind_others: bool,
    /// Whether what an earlier run has left stays in force, until [`settle_egress`].
    pub beside: bool,
}

/// Puts the program that records what is sent on an interface, before all others that see it.
/// Returns why it is not TCX where it could not be.
///
/// # Errors
/// When neither hook works, or others would keep packets from it: exit code 69.
pub fn egress(
    program: &mut SchedClassifier,
    spot: AttachPoint<'_>,
    wish: EgressRequest,
    own: &ProgramIds,
) -> Result<(Attached, EgressHook, Option<String>), Failure> {
    let name = spot.name;
    if wish.hook == config::EgressMode::Clsact {
        let hold = add_filter(program, spot, wish, own)?;
        // Links from an earlier run would record everything twice.
        release_links(spot)?;
        return Ok((hold, EgressHook::Clsact, None));
    }

    let fd = program.fd().context("the egress program is not loaded")?;
    match attach_first(fd.as_fd(), spot, own) {
        Ok(hold) => {
            if !wish.beside {
                release_those(name, |filter| filter.ours() == Some(Ours::Egress))?;
            }
            Ok((hold, EgressHook::Tcx, None))
        }
        Err(error) if wish.hook == config::EgressMode::Auto => {
            let reason = format!("{name}: the kernel has no TCX: {error}");
            let hold = add_filter(program, spot, wish, own)?;
            Ok((hold, EgressHook::Clsact, Some(reason)))
        }
        Err(error) => Err(
            Failure::unavailable(format!("{name}: the kernel has no TCX: {error}"))
                .remedy("run Linux 6.6 or later, or leave --egress-hook at auto"),
        ),
    }
}

/// Ends what earlier runs have left in force beside our own programs.
///
/// # Errors
/// When the kernel refuses.
pub fn settle_egress(spot: AttachPoint<'_>, own: &ProgramIds) -> anyhow::Result<()> {
    release_those(spot.name, |filter| {
        !is_program(filter, Ours::Egress, own.egress) && !is_program(filter, Ours::Last, own.last)
    })
}

/// Takes off everything of ours that sees what an interface sends. The copy goes first, because
/// it is of no use alone.
///
/// # Errors
/// When the kernel refuses.
pub fn release_egress(spot: AttachPoint<'_>) -> anyhow::Result<()> {
    release_links(spot)?;

    release_clsact(spot.name)
}

/// Takes off our links.
///
/// # Errors
/// When the kernel refuses.
pub fn release_links(spot: AttachPoint<'_>) -> anyhow::Result<()> {
    Hook::of_egress().try_for_each(|hook| release_pin(&spot.pin(hook)))
}

/// What would keep packets from a program that is attached by this hook, which cannot go before it.
pub fn obstacles(row: &Row, hook: EgressHook, own: &ProgramIds) -> Vec<OtherProgram> {
    match hook {
        EgressHook::Tcx => Vec::new(),
        EgressHook::Clsact => before_any_filter(row, own),
    }
}

/// The others that see what is sent after ours, which is attached by this hook.
pub fn others(row: &Row, hook: EgressHook, own: &ProgramIds) -> Vec<OtherProgram> {
    let obstacles = obstacles(row, hook, own);
    let mut others = standing(row, EgressHook::Tcx, own).behind;
    others.retain(|other| !obstacles.contains(other));

    others
}

/// Refuses an interface where these would keep packets from our filter.
pub fn refused_behind(name: &str, obstacles: &[String], tcx: bool) -> Failure {
    let remedy = if tcx {
        "leave --egress-hook at auto, which runs before them, or take them off"
    } else {
        "give filters there a priority from 2 on, or take them off"
    };

    Failure::unavailable(format!(
        "{name}: {} would see what is sent before portguard, and what such a filter matches is \
         not recorded: answers to it would be dropped",
        obstacles.join("; ")
    ))
    .remedy(format!(
        "{remedy}; --allow-filter-in-front guards all the same, for one that passes everything on"
    ))
}

/// Takes over from the link that is pinned, or attaches anew. A link that is not the first any more
/// is left in force until a new one is.
fn attach_first(
    program: BorrowedFd<'_>,
    spot: AttachPoint<'_>,
    own: &ProgramIds,
) -> io::Result<Attached> {
    let pin = spot.pin(Hook::Egress);
    let hold = Attached::Pinned(pin.clone());
    let Some(old) = spot.link(Hook::Egress) else {
        release_pin(&pin).map_err(io::Error::other)?;
        let link = attach_when_free(program, spot.index)?;
        syscalls::pin(link.as_fd(), &pin)?;
        return Ok(hold);
    };
    let current = syscalls::linked(old.as_fd())?.program;
    let row = tcx::programs(spot.index)?.unwrap_or_default();
    let mut before = row.iter().take_while(|id| **id != current);
    let first = before.all(|id| own.earlier.contains(id));
    if first && syscalls::update_link(old.as_fd(), program).is_ok() {
        return Ok(hold);
    }

    let link = tcx::attach(program, spot.index, TcxEnd::First)?;
    spot.pin_anew(link.as_fd(), Hook::Egress)
        .map_err(io::Error::other)?;
    syscalls::detach_link(old.as_fd())?;

    Ok(hold)
}

/// Attaches before all others. A program can be attached but once, and is until the kernel has freed a
/// link that nothing holds any more, such as one whose pin was removed.
fn attach_when_free(program: BorrowedFd<'_>, index: u32) -> io::Result<OwnedFd> {
    const PAUSE: Duration = Duration::from_millis(10);

    let deadline = Instant::now() + FREED;
    loop {
        match tcx::attach(program, index, TcxEnd::First) {
            Err(error)
                if error.raw_os_error() == Some(libc::EEXIST) && Instant::now() < deadline =>
            {
                thread::sleep(PAUSE);
            }
            attached => return attached,
        }
    }
}

fn add_filter(
    program: &mut SchedClassifier,
    spot: AttachPoint<'_>,
    wish: EgressRequest,
    own: &ProgramIds,
) -> Result<Attached, Failure> {
    let name = spot.name;
    match qdisc_add_clsact(name) {
        Ok(()) => {}
        // Somebody has one, or what is in its place.
        Err(error) if errno_tc(&error) == Some(libc::EEXIST) => require_room_for_clsact(name)?,
        Err(error) => return Err(refused_clsact(name, &error.into())),
    }
    let row = Row::of(spot.index).with_context(|| format!("{name}: list its filters"))?;
    let obstacles = obstacles(&row, EgressHook::Clsact, own);
    if !obstacles.is_empty() && !wish.behind_others {
        let tcx = wish.hook == config::EgressMode::Clsact && !row.programs.is_empty();
        let said = super::chain::ProgramNames::default().describe(&obstacles);
        return Err(refused_behind(name, &said, tcx));
    }

    let ahead = |priority: u16| {
        let others = row.filters.iter().filter(|one| one.ours().is_none());
        others.into_iter().any(|one| one.priority <= priority)
    };
    let left = row
        .filters
        .iter()
        .find(|one| one.ours() == Some(Ours::Egress));
    let attached = match left {
        // In one step: the filter of the earlier run becomes ours.
        Some(left) if !wish.beside && !ahead(left.priority) => {
            clsact::replace(program, name, left.priority, left.handle)
        }
        _ => clsact::add(program, name, Ours::Egress, &row.filters),
    };
    attached.map_err(|error| refused_clsact(name, &error))?;
    if !wish.beside {
        release_those(name, |filter| {
            filter.ours() == Some(Ours::Egress) && filter.program != Some(own.egress)
        })?;
    }

    Ok(Attached::Clsact(name.to_owned()))
}

/// Moves the program that records and counts before all others, if that can be done. At every moment
/// it or its copy is in force.
///
/// # Errors
/// When the kernel refuses.
pub fn move_to_front(
    programs: &mut Programs,
    spot: AttachPoint<'_>,
    (hook, row): (EgressHook, &Row),
    own: &ProgramIds,
) -> anyhow::Result<bool> {
    match hook {
        EgressHook::Tcx => {
            let last_link = row
                .programs
                .contains(&own.last)
                .then(|| spot.link(Hook::EgressLast))
                .flatten();
            let (egress, last) = descriptors(programs)?;
            link_to_front(spot, (egress.as_fd(), last.as_fd()), last_link)?;
            Ok(true)
        }
        EgressHook::Clsact if before_any_filter(row, own).is_empty() => {
            let program = programs.egress()?;
            clsact::add(program, spot.name, Ours::Egress, &row.filters)?;
            let before: Vec<_> = row.filters.iter().map(|one| one.handle).collect();
            release_those(spot.name, |one| {
                one.ours() == Some(Ours::Egress) && before.contains(&one.handle)
            })?;
            Ok(true)
        }
        EgressHook::Clsact => Ok(false),
    }
}

/// A program can be in a row but once, so its place is changed by way of others: one that does
/// nothing makes room in front, the copy records there while the program goes from its old link to
/// the new one, and then goes back to where it was.
fn link_to_front(
    spot: AttachPoint<'_>,
    (egress, last): (BorrowedFd<'_>, BorrowedFd<'_>),
    last_link: Option<OwnedFd>,
) -> anyhow::Result<()> {
    let old = spot.link(Hook::Egress).context("its egress link is gone")?;
    let idle = [
        tcx::placeholder()?,
        tcx::placeholder()?,
        tcx::placeholder()?,
    ];
    let new = tcx::attach(idle[0].as_fd(), spot.index, TcxEnd::First)?;
    if let Some(link) = &last_link {
        syscalls::update_link(link.as_fd(), idle[1].as_fd())?;
    }
    syscalls::update_link(new.as_fd(), last)?;
    spot.pin_anew(new.as_fd(), Hook::Egress)?;
    syscalls::update_link(old.as_fd(), idle[2].as_fd())?;
    syscalls::update_link(new.as_fd(), egress)?;
    if let Some(link) = &last_link {
        syscalls::update_link(link.as_fd(), last)?;
    }

    Ok(syscalls::detach_link(old.as_fd())?)
}

/// Puts the copies that run last where they are needed, and takes them off where they are not.
/// Returns whether anything was to be done.
///
/// # Errors
/// When the kernel refuses.
pub fn place_last(
    programs: &mut Programs,
    spot: AttachPoint<'_>,
    (row, found): (&Row, &Standing),
    own: &ProgramIds,
) -> anyhow::Result<bool> {
    let behind_programs = last_link(programs, spot, row, found.last_program, own)?;
    let behind_filters = last_filter(programs, spot, row, found.last_filter, own)?;

    Ok(behind_programs || behind_filters)
}

fn last_link(
    programs: &mut Programs,
    spot: AttachPoint<'_>,
    row: &Row,
    state: Last,
    own: &ProgramIds,
) -> anyhow::Result<bool> {
    let pin = spot.pin(Hook::EgressLast);
    match state {
        Last::Settled if row.programs.contains(&own.last) => return Ok(false),
        Last::Settled | Last::Idle => {
            // Also what an earlier run has left there.
            if !pin.exists() {
                return Ok(false);
            }
            release_pin(&pin)?;
        }
        Last::Missing => {
            let (_, last) = descriptors(programs)?;
            match spot.link(Hook::EgressLast) {
                Some(link) => syscalls::update_link(link.as_fd(), last.as_fd())?,
                None => {
                    release_pin(&pin)?;
                    let link = tcx::attach(last.as_fd(), spot.index, TcxEnd::Last)?;
                    pin_at(link.as_fd(), &pin)?;
                }
            }
        }
        Last::Passed => {
            let (_, last) = descriptors(programs)?;
            let old = spot.link(Hook::EgressLast).context("its link is gone")?;
            let idle = [tcx::placeholder()?, tcx::placeholder()?];
            let new = tcx::attach(idle[0].as_fd(), spot.index, TcxEnd::Last)?;
            syscalls::update_link(old.as_fd(), idle[1].as_fd())?;
            syscalls::update_link(new.as_fd(), last.as_fd())?;
            spot.pin_anew(new.as_fd(), Hook::EgressLast)?;
            syscalls::detach_link(old.as_fd())?;
        }
    }

    Ok(true)
}

fn last_filter(
    programs: &mut Programs,
    spot: AttachPoint<'_>,
    row: &Row,
    state: Last,
    own: &ProgramIds,
) -> anyhow::Result<bool> {
    let earlier = |filter: &super::filter::TcFilter| {
        filter.ours() == Some(Ours::Last) && filter.program != Some(own.last)
    };
    match state {
        Last::Missing => {
            let program = programs.egress_last()?;
            clsact::add(program, spot.name, Ours::Last, &row.filters)?;
            // What an earlier run has left is taken off when it is settled.
            Ok(true)
        }
        Last::Idle => {
            release_those(spot.name, |one| one.ours() == Some(Ours::Last))?;
            Ok(true)
        }
        // Nobody takes over from it, and it goes by maps that nobody reads.
        Last::Settled | Last::Passed if own.earlier.is_empty() => {
            if !row.filters.iter().any(earlier) {
                return Ok(false);
            }
            release_those(spot.name, earlier)?;
            Ok(true)
        }
        Last::Settled | Last::Passed => Ok(false),
    }
}

fn pin_at(link: BorrowedFd<'_>, pin: &Path) -> anyhow::Result<()> {
    syscalls::pin(link, pin).with_context(|| format!("{}: cannot be pinned", pin.display()))
}

/// Of the program that records and counts, and of its copy.
fn descriptors(programs: &mut Programs) -> anyhow::Result<(OwnedFd, OwnedFd)> {
    let of = |program: &SchedClassifier| -> anyhow::Result<OwnedFd> {
        Ok(program.fd()?.as_fd().try_clone_to_owned()?)
    };
    let egress = of(programs.egress()?)?;

    Ok((egress, of(programs.egress_last()?)?))
}

/// Where our programs stand on an interface, by what the kernel says.
///
/// # Errors
/// When it refuses.
pub fn look(index: u32, hook: EgressHook, own: &ProgramIds) -> io::Result<(Row, Standing)> {
    let row = Row::of(index)?;
    let found = standing(&row, hook, own);

    Ok((row, found))
}
