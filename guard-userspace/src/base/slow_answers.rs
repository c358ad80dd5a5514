//! Answers of the kernel that tests keep back, to show that nothing waits for them which should not.
//!
//! `portguard` keeps none back: nothing in it calls [`keep_back`].

use std::{fs, io::Write, path::PathBuf, sync::OnceLock, thread, time::Duration};

/// How often to look whether an answer is kept back still.
const AGAIN: Duration = Duration::from_millis(20);

/// Where files say what is kept back.
static FOLDER: OnceLock<PathBuf> = OnceLock::new();

/// What the kernel is asked about.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Subject {
    /// Sockets.
    Sockets,
    /// Tracked connections.
    Conntrack,
    /// Interfaces, addresses and routes.
    Interfaces,
    /// The last of what a change has to know of older flows.
    Flows,
}

impl Subject {
    /// Every subject.
    pub const ALL: [Self; 4] = [
        Self::Sockets,
        Self::Conntrack,
        Self::Interfaces,
        Self::Flows,
    ];

    /// The name of the file that keeps its answers back.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Sockets => "sockets",
            Self::Conntrack => "conntrack",
            Self::Interfaces => "interfaces",
            Self::Flows => "flows",
        }
    }
}

/// From now on an answer is kept back for as long as `folder` holds a file by the name of its subject.
/// A thread that waits for one adds a line to that file.
pub fn keep_back(folder: PathBuf) {
    // The first caller decides.
    let _ = FOLDER.set(folder);
}

/// Blocks while answers about this are kept back, as if the kernel took that long.
pub(crate) fn wait(subject: Subject) {
    let Some(path) = FOLDER.get().map(|folder| folder.join(subject.name())) else {
        return;
    };
    let noted = fs::File::options().append(true).open(&path);
    if let Ok(mut file) = noted {
        let _ = writeln!(file, "{:?}", thread::current().name());
    }
    while path.exists() {
        thread::sleep(AGAIN);
    }
}
