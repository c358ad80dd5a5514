//! Keeping the egress programs of an interface in their places, beside those of others.

use std::time::{Duration, Instant};

use crate::{
    bpf::{
        attach::{self, AttachPoint, EgressHook, ProgramNames, Standing},
        programs::{ProgramIds, Programs},
    },
    guard::{
        alarms::{AlarmKind, Alarms},
        attachment::Chain,
    },
};

/// How often ours is moved before a program that somebody puts in front of it, in so much time.
const MOVES: u32 = 5;
const MOVES_IN: Duration = Duration::from_secs(600);

/// How often the row is looked at anew after a change, before the next look is waited for.
const ROUNDS: usize = 4;

/// What is known of the others on an interface, and what was done about them.
#[derive(Debug, Default)]
pub(super) struct Neighbours {
    /// The ids of our own programs.
    pub(super) own: ProgramIds,
    /// What was seen last.
    pub(super) chain: Chain,
    names: ProgramNames,
    moves: u32,
    /// When the first of these moves was made.
    moving_since: Option<Instant>,
    /// What went wrong, if that was said already.
    complaint: Option<String>,
}

/// What a look at the others may do, and whom it tells.
pub(super) struct Look<'a> {
    pub(super) spot: AttachPoint<'a>,
    pub(super) hook: EgressHook,
    /// Whether others may stand before ours.
    pub(super) behind_others: bool,
    /// Whether ours is moved to the front however often that was done.
    pub(super) urgent: bool,
    pub(super) alarms: &'a Alarms,
    pub(super) notes: &'a mut Vec<String>,
}

impl Neighbours {
    /// Puts the program that records and counts before all others, and the copy behind them while
    /// there are any. Raises an alarm where something stays in front. Returns whether ours was moved
    /// there; nothing where it is missing altogether.
    pub(super) fn arrange(&mut self, programs: &mut Programs, look: &mut Look<'_>) -> Option<bool> {
        let (spot, name) = (look.spot, look.spot.name);
        let mut moved = false;
        let mut complaint = None;
        let mut round = 0;
        let found = loop {
            let (row, found) = match attach::look(spot.index, look.hook, &self.own) {
                Ok(seen) => seen,
                Err(error) => {
                    let complaint = format!("{name}: list who sees what is sent: {error}");
                    self.complain(Some(complaint), look.notes);
                    return Some(moved);
                }
            };
            self.names.keep(&row);
            if !found.present {
                return None;
            }
            round += 1;
            if round > ROUNDS || complaint.is_some() {
                break found;
            }
            let changed = if !found.in_front.is_empty() && self.may_move(look, moved) {
                let who = self.names.describe(&found.in_front).join("; ");
                let to_front = attach::move_to_front(programs, spot, (look.hook, &row), &self.own);
                if let Ok(true) = to_front {
                    moved = true;
                    look.notes.push(format!(
                        "{name}: {who} was put before the program that records what is sent, which \
                         is the first again"
                    ));
                }
                to_front
            } else {
                Ok(false)
            };
            let changed = match changed {
                Ok(false) => attach::place_last(programs, spot, (&row, &found), &self.own),
                changed => changed,
            };
            match changed {
                Ok(true) => {}
                Ok(false) => break found,
                Err(error) => complaint = Some(format!("{name}: {error:#}")),
            }
        };
        self.tell(&found, complaint, look);

        Some(moved)
    }

    /// A tool that wants to be the first as well would go on for ever.
    fn may_move(&mut self, look: &Look<'_>, moved: bool) -> bool {
        if look.urgent && !moved {
            return true;
        }
        let now = Instant::now();
        let recent = |since: Instant| now.duration_since(since) < MOVES_IN;
        if !self.moving_since.is_some_and(recent) {
            self.moving_since = Some(now);
            self.moves = 0;
        }
        let may = self.moves < MOVES;
        self.moves += u32::from(may);

        may
    }

    fn tell(&mut self, found: &Standing, complaint: Option<String>, look: &mut Look<'_>) {
        let name = look.spot.name;
        let seen = Chain {
            in_front: self.names.describe(&found.in_front),
            behind: self.names.describe(&found.behind),
        };
        if seen.behind != self.chain.behind && !seen.behind.is_empty() {
            look.notes.push(format!(
                "{name}: {} runs after the program that records what is sent; a second copy runs \
                 last and records what it changes, unless it ends the chain",
                seen.behind.join("; ")
            ));
        }
        if seen.in_front.is_empty() || look.behind_others {
            look.alarms.clear(name, AlarmKind::Chain);
            if seen.in_front != self.chain.in_front && !seen.in_front.is_empty() {
                look.notes.push(format!(
                    "{name}: {} runs before the program that records what is sent, as \
                     --allow-filter-in-front allows",
                    seen.in_front.join("; ")
                ));
            }
        } else {
            look.alarms.raise(
                name,
                AlarmKind::Chain,
                &format!(
                    "{} runs before the program that records what is sent, and what it does not \
                     pass on is not recorded: answers to it are dropped; take it off, or allow it \
                     with --allow-filter-in-front",
                    seen.in_front.join("; ")
                ),
            );
        }
        self.complain(complaint, look.notes);
        self.chain = seen;
    }

    /// Says what went wrong, once.
    fn complain(&mut self, complaint: Option<String>, notes: &mut Vec<String>) {
        if complaint != self.complaint {
            notes.extend(complaint.clone());
        }
        self.complaint = complaint;
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::bpf::pins::Pins;

    #[test]
    fn nobody_is_fought_for_ever() {
        let pins = Pins::new(Path::new("/nowhere"), "none");
        let (alarms, mut notes) = (Alarms::default(), Vec::new());
        let spot = AttachPoint {
            name: "eth0",
            index: 1,
            pins: &pins,
        };
        let mut look = Look {
            spot,
            hook: EgressHook::Tcx,
            behind_others: false,
            urgent: false,
            alarms: &alarms,
            notes: &mut notes,
        };
        let mut neighbours = Neighbours::default();
        let moves = (0..100).filter(|_| neighbours.may_move(&look, false));
        assert_eq!(moves.count(), MOVES as usize);
        look.urgent = true;
        assert!(neighbours.may_move(&look, false));
        assert!(!neighbours.may_move(&look, true));
    }
}
