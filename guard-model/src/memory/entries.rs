//! Entries that are added and never removed.

use std::{
    cell::{OnceCell, RefCell},
    collections::HashMap,
    hash::Hash,
};

/// Entries in the order of their insertion. None is ever removed, so a reference into one stays
/// good while others are added.
pub(super) struct Entries<K, V> {
    entries: Vec<OnceCell<(K, V)>>,
    indices: RefCell<HashMap<K, usize>>,
}

impl<K: Copy + Eq + Hash, V> Entries<K, V> {
    pub fn new(room: usize) -> Self {
        Self {
            entries: (0..room).map(|_| OnceCell::new()).collect(),
            indices: RefCell::default(),
        }
    }

    pub fn iter(&self) -> impl Iterator<Item = &(K, V)> {
        self.entries.iter().map_while(OnceCell::get)
    }

    pub fn get(&self, key: &K) -> Option<&V> {
        let index = *self.indices.borrow().get(key)?;
        self.entries[index].get().map(|(_, value)| value)
    }

    /// Whether there was room.
    pub fn add(&self, key: K, value: V) -> bool {
        let mut indices = self.indices.borrow_mut();
        let free = indices.len();
        match self.entries.get(free) {
            Some(entry) => {
                indices.insert(key, free);
                entry.set((key, value)).is_ok()
            }
            None => false,
        }
    }
}
