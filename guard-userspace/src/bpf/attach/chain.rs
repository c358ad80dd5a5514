//! Who else sees what an interface sends: TCX programs, and after them the filters of clsact.
//!
//! A program that returns another verdict than `TCX_NEXT`, and a filter that matches, ends the chain
//! for everything behind it (`sch_handle_egress`, net/core/dev.c; `tcf_classify`,
//! net/sched/cls_api.c). So ours runs first. What others change behind it is recorded by a second
//! copy that runs last, as long as there are any.

use std::{collections::BTreeMap, io};

use super::filter::{self, Ours, TcFilter};
use crate::{
    base::text::plain,
    bpf::{attach::EgressHook, programs::ProgramIds, syscalls::tcx},
};

/// How many neighbours are named. A host may have a hundred thousand filters.
const NAMED: usize = 8;

/// Everything that sees what an interface sends, in the order in which it runs.
#[derive(Clone, Debug, Default)]
pub struct Row {
    /// TCX programs, by their ids.
    pub programs: Vec<u32>,
    /// Filters of clsact.
    pub filters: Vec<TcFilter>,
}

impl Row {
    /// Asks the kernel.
    ///
    /// # Errors
    /// When it refuses.
    pub fn of(interface: u32) -> io::Result<Self> {
        let programs = match tcx::programs(interface) {
            Ok(programs) => programs.unwrap_or_default(),
            Err(error) if error.raw_os_error() == Some(libc::ENODEV) => Vec::new(),
            Err(error) => return Err(error),
        };

        Ok(Self {
            programs,
            filters: filter::filters(interface)?,
        })
    }
}

/// One of the others.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum OtherProgram {
    /// A TCX program, by its id.
    Program(u32),
    /// A filter of clsact.
    Filter(TcFilter),
}

/// What is to be done about a copy that runs last.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Last {
    /// Nothing: it is where it should be, or not needed and not there.
    Settled,
    /// It is needed, and not there.
    Missing,
    /// It is there, and others have come behind it.
    Passed,
    /// It is there, and is not needed any more.
    Idle,
}

/// Where our programs stand.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Standing {
    /// Whether the program that records and counts is there at all.
    pub present: bool,
    /// What runs before it.
    pub in_front: Vec<OtherProgram>,
    /// What runs after it.
    pub behind: Vec<OtherProgram>,
    /// The copy behind other TCX programs.
    pub last_program: Last,
    /// The copy behind other filters.
    pub last_filter: Last,
}

/// Where our programs stand in a row, when the one that records and counts is at `hook`.
pub fn standing(row: &Row, hook: EgressHook, own: &ProgramIds) -> Standing {
    let ours = |id: &u32| *id == own.egress || *id == own.last || own.earlier.contains(id);
    let foreign_program = |id: &u32| !ours(id);
    let foreign_filter = |filter: &TcFilter| filter.ours().is_none();
    let programs = row.programs.iter().map(|id| (*id, foreign_program(id)));
    let programs: Vec<_> = programs.collect();
    let filters = row.filters.iter();
    let filters: Vec<_> = filters.map(|one| (one, foreign_filter(one))).collect();

    let at_program = row.programs.iter().position(|id| *id == own.egress);
    let of_program = |id| move |one: &TcFilter| one.program == Some(id);
    let at_filter = row.filters.iter().position(of_program(own.egress));
    let (present, first_program, first_filter) = match hook {
        EgressHook::Tcx => (at_program.is_some(), at_program.unwrap_or(0), 0),
        EgressHook::Clsact => (
            at_filter.is_some(),
            row.programs.len(),
            at_filter.unwrap_or(0),
        ),
    };

    let (programs_before, programs_after) = programs.split_at(first_program);
    let (filters_before, filters_after) = filters.split_at(first_filter);
    let last = |others: &[bool], place: Option<usize>| {
        let due = others.contains(&true);
        match place {
            None if due => Last::Missing,
            None => Last::Settled,
            Some(_) if !due => Last::Idle,
            Some(place) if others.iter().skip(place).any(|foreign| *foreign) => Last::Passed,
            Some(_) => Last::Settled,
        }
    };
    let foreign = |others: &[(u32, bool)]| others.iter().map(|one| one.1).collect::<Vec<_>>();
    let place = programs_after.iter().position(|one| one.0 == own.last);
    let stray = programs_before.iter().any(|one| one.0 == own.last);
    let last_program = match last(&foreign(programs_after), place) {
        // Before ours, where it is not needed.
        Last::Settled if stray => Last::Idle,
        Last::Missing if stray => Last::Passed,
        settled => settled,
    };
    let others: Vec<_> = filters_after.iter().map(|one| one.1).collect();
    let place = filters_after
        .iter()
        .position(|one| one.0.program == Some(own.last));
    // What stands behind it there has its priority, and nothing can be done about that.
    let last_filter = match last(&others, place) {
        Last::Passed => Last::Settled,
        settled => settled,
    };

    Standing {
        present,
        in_front: foreign_of(programs_before, filters_before),
        behind: foreign_of(programs_after, filters_after),
        last_program,
        last_filter,
    }
}

/// Those that are not ours, which is said beside each.
fn foreign_of(programs: &[(u32, bool)], filters: &[(&TcFilter, bool)]) -> Vec<OtherProgram> {
    let programs = programs.iter().filter(|(_, foreign)| *foreign);
    let programs = programs.map(|(id, _)| OtherProgram::Program(*id));
    let filters = filters.iter().filter(|(_, foreign)| *foreign);
    let filters = filters.map(|(filter, _)| OtherProgram::Filter((*filter).clone()));

    programs.chain(filters).collect()
}

/// What would keep a filter of ours from being the first: all that a run with `--egress-hook clsact`
/// would stand behind.
pub fn before_any_filter(row: &Row, own: &ProgramIds) -> Vec<OtherProgram> {
    let ours = |id: &u32| *id == own.egress || *id == own.last || own.earlier.contains(id);
    let programs = row.programs.iter().filter(|id| !ours(id));
    let programs = programs.map(|id| OtherProgram::Program(*id));
    let filters = row.filters.iter().filter(|filter| {
        filter.ours().is_none()
            && filter.priority == filter::FIRST_PRIORITY
            && !filter.admits_ours()
    });

    programs
        .chain(filters.cloned().map(OtherProgram::Filter))
        .collect()
}

/// Names of programs, which the kernel tells root alone: asked for while the daemon is root, and
/// kept for as long as the programs are there.
#[derive(Debug, Default)]
pub struct ProgramNames(BTreeMap<u32, Option<String>>);

impl ProgramNames {
    /// The neighbours in words: a few of them, and how many more there are.
    pub fn describe(&mut self, neighbours: &[OtherProgram]) -> Vec<String> {
        let more = neighbours.len().saturating_sub(NAMED);
        let named = neighbours.iter().take(NAMED).map(|one| self.name(one));
        let mut named: Vec<_> = named.collect();
        if more > 0 {
            named.push(format!("{more} more"));
        }

        named
    }

    /// Forgets programs that are in this row no longer.
    pub fn keep(&mut self, row: &Row) {
        self.0.retain(|id, _| row.programs.contains(id));
    }

    fn name(&mut self, neighbour: &OtherProgram) -> String {
        match neighbour {
            OtherProgram::Filter(filter) => filter.describe(),
            OtherProgram::Program(id) => {
                let name = self.0.entry(*id).or_insert_with(|| tcx::program_name(*id));
                match name {
                    Some(name) => format!("TCX program {} (id {id})", plain(name)),
                    None => format!("TCX program with id {id}"),
                }
            }
        }
    }
}

/// Whether a filter is the program with this id, with the role it should have.
pub(super) fn is_program(filter: &TcFilter, role: Ours, id: u32) -> bool {
    filter.program == Some(id) && filter.ours() == Some(role)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bpf::programs;

    const OWN: ProgramIds = ProgramIds {
        egress: 1,
        last: 2,
        earlier: Vec::new(),
    };

    fn of(kind: &str, priority: u16, program: Option<(&str, u32)>) -> TcFilter {
        let ours = program.is_some_and(|(name, _)| name.starts_with("egress"));
        TcFilter {
            kind: kind.to_owned(),
            priority,
            every_protocol: kind == "bpf",
            handle: if ours { *filter::HANDLES.start() } else { 1 },
            name: program.map(|(name, _)| name.to_owned()),
            program: program.map(|(_, id)| id),
        }
    }

    #[test]
    fn where_programs_stand_in_the_row_of_tcx() {
        use Last::{Idle, Missing, Passed, Settled};

        type Ids = &'static [u32];

        // row, in front, behind, the copy that runs last
        let table: [(Ids, Ids, Ids, Last); 11] = [
            (&[1], &[], &[], Settled),
            (&[1, 9], &[], &[9], Missing),
            (&[9, 1], &[9], &[], Settled),
            (&[8, 1, 9], &[8], &[9], Missing),
            (&[1, 9, 2], &[], &[9], Settled),
            (&[1, 9, 2, 8], &[], &[9, 8], Passed),
            (&[1, 2, 9], &[], &[9], Passed),
            (&[1, 2], &[], &[], Idle),
            (&[9, 1, 2], &[9], &[], Idle),
            (&[2, 1], &[], &[], Idle),
            (&[2, 1, 9], &[], &[9], Passed),
        ];
        for (programs, in_front, behind, last) in table {
            let row = Row {
                programs: programs.to_vec(),
                filters: Vec::new(),
            };
            let found = standing(&row, EgressHook::Tcx, &OWN);
            let named = |ids: &[u32]| {
                ids.iter()
                    .copied()
                    .map(OtherProgram::Program)
                    .collect::<Vec<_>>()
            };
            assert!(found.present, "{programs:?}");
            assert_eq!(found.in_front, named(in_front), "{programs:?}");
            assert_eq!(found.behind, named(behind), "{programs:?}");
            assert_eq!(found.last_program, last, "{programs:?}");
            assert_eq!(found.last_filter, Settled, "{programs:?}");
        }
        let row = |programs: &[u32]| Row {
            programs: programs.to_vec(),
            filters: Vec::new(),
        };
        assert!(!standing(&row(&[9]), EgressHook::Tcx, &OWN).present);
        let taken_over = ProgramIds {
            earlier: vec![7, 8],
            ..OWN
        };
        let found = standing(&row(&[7, 1, 8]), EgressHook::Tcx, &taken_over);
        assert!(found.in_front.is_empty() && found.behind.is_empty());
    }

    #[test]
    fn filters_run_after_tcx() {
        let row = Row {
            programs: vec![1],
            filters: vec![of("u32", 1, None)],
        };
        let found = standing(&row, EgressHook::Tcx, &OWN);
        assert!(found.in_front.is_empty());
        assert_eq!(found.behind.len(), 1);
        assert_eq!(found.last_program, Last::Settled);
        assert_eq!(found.last_filter, Last::Missing);

        let egress = || of("bpf", 1, Some((programs::EGRESS, 1)));
        let last = || of("bpf", 65_535, Some((programs::EGRESS_LAST, 2)));
        // filters, in front, behind, the copy that runs last
        let table = [
            (vec![egress()], 0, 0, Last::Settled),
            (vec![of("bpf", 1, None), egress()], 1, 0, Last::Settled),
            (vec![egress(), of("bpf", 1, None)], 0, 1, Last::Missing),
            (
                vec![egress(), of("flower", 9, None), last()],
                0,
                1,
                Last::Settled,
            ),
            (vec![egress(), last()], 0, 0, Last::Idle),
        ];
        for (filters, in_front, behind, last) in table {
            let row = Row {
                programs: Vec::new(),
                filters,
            };
            let found = standing(&row, EgressHook::Clsact, &OWN);
            assert!(found.present, "{row:?}");
            let counts = (found.in_front.len(), found.behind.len());
            assert_eq!(counts, (in_front, behind), "{row:?}");
            assert_eq!(found.last_filter, last, "{row:?}");
            assert_eq!(found.last_program, Last::Settled, "{row:?}");
        }
        let row = Row {
            programs: vec![9],
            filters: vec![egress()],
        };
        let found = standing(&row, EgressHook::Clsact, &OWN);
        assert_eq!(found.in_front, [OtherProgram::Program(9)]);
    }

    #[test]
    fn what_no_filter_of_ours_can_run_before() {
        let row = Row {
            programs: vec![9],
            filters: vec![
                of("bpf", 1, Some(("another", 12))),
                of("u32", 1, None),
                of("matchall", 2, None),
            ],
        };
        let found = before_any_filter(&row, &OWN);
        let due = [
            OtherProgram::Program(9),
            OtherProgram::Filter(of("u32", 1, None)),
        ];
        assert_eq!(found, due);
    }

    #[test]
    fn neighbours_in_words() {
        let filter = of("bpf", 7, Some(("x\ny", 12)));
        assert_eq!(
            filter.describe(),
            "bpf filter, priority 7, handle 0x1, program x?y (id 12)"
        );
        let filter = TcFilter {
            handle: 0x8000_0800,
            ..of("u32", 1, None)
        };
        assert_eq!(filter.describe(), "u32 filter, priority 1, handle 800::800");
        let many = vec![OtherProgram::Filter(filter); 100];
        let said = ProgramNames::default().describe(&many);
        assert_eq!(said.len(), NAMED + 1);
        assert_eq!(said[NAMED], "92 more");
    }
}
