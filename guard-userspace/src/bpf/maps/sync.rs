//! What a map holds that the daemon alone writes.

use std::collections::BTreeSet;

/// Makes a map hold what is `wanted` and nothing else. What stays is there all along, and what the
/// kernel refuses keeps nothing else out or in.
///
/// # Errors
/// The first refusal, for instance because the map is full.
pub(super) fn exchange<M, T: Clone + Ord, E>(
    (map, held): (&mut M, &mut BTreeSet<T>),
    wanted: &BTreeSet<T>,
    remove: impl Fn(&mut M, &T) -> Result<(), E>,
    insert: impl Fn(&mut M, &T) -> Result<(), E>,
) -> Result<(), E> {
    let mut outcome = Ok(());
    let gone: Vec<_> = held.difference(wanted).cloned().collect();
    for one in gone {
        let removed = remove(map, &one);
        if removed.is_ok() {
            held.remove(&one);
        }
        outcome = outcome.and(removed);
    }
    let new: Vec<_> = wanted.difference(held).cloned().collect();
    for one in new {
        let inserted = insert(map, &one);
        if inserted.is_ok() {
            held.insert(one);
        }
        outcome = outcome.and(inserted);
    }

    outcome
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_keeps_nothing_else_out() {
        let (mut map, mut held) = (BTreeSet::from([1, 2, 3]), BTreeSet::from([1, 2, 3]));
        let wanted = BTreeSet::from([3, 4, 5, 6]);
        let refuse = |refused: i32, one: i32| if one == refused { Err(one) } else { Ok(()) };
        let outcome = exchange(
            (&mut map, &mut held),
            &wanted,
            |map: &mut BTreeSet<i32>, one| {
                refuse(1, *one)?;
                map.remove(one);
                Ok(())
            },
            |map, one| {
                refuse(5, *one)?;
                map.insert(*one);
                Ok(())
            },
        );
        assert_eq!(outcome, Err(1));
        assert_eq!(map, BTreeSet::from([1, 3, 4, 6]));
        assert_eq!(map, held);
    }
}
