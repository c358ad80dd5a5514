//! A walk through the descriptors of all processes, in pieces, for who has which sockets open.
//!
//! Nothing tells in which process a socket is open but a look at every descriptor there is, and a
//! host may have millions. So a walk stops when its time is over and goes on there later, looks
//! first where a socket's user is at home, and asks a place it has found before once again only.

use std::{
    collections::HashMap,
    fs::{self, File, ReadDir},
    io,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use nix::fcntl::readlink;

use super::SocketOwner;

/// Descriptors to look at before the clock is.
const AT_ONCE: usize = 64;

/// Sockets whose places are remembered.
const MOST_PLACES: usize = 16_384;

/// A socket in question.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct OpenSocket {
    /// The inode that descriptors show.
    pub inode: u32,
    /// The user who has opened it.
    pub uid: u32,
}

/// What a piece of a walk has found out.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct WalkResult {
    /// Sockets and who has them open.
    pub owners: Vec<(u32, SocketOwner)>,
    /// Sockets that no process has open which could be looked into.
    pub nobodys: Vec<u32>,
}

/// A walk through the descriptors of all processes.
#[derive(Debug, Default)]
pub struct DescriptorWalk {
    /// The sockets that are looked for, and whether they have been since the round began.
    wanted: HashMap<u32, (u32, bool)>,
    /// Where sockets were found.
    places: HashMap<u32, Place>,
    /// Processes of this round that were not looked into yet, the next one last.
    ahead: Vec<i32>,
    /// The process that is looked into.
    inside: Option<Inside>,
    /// Whether a round is under way.
    begun: bool,
}

#[derive(Clone, Debug)]
struct Place {
    pid: i32,
    link: PathBuf,
}

#[derive(Debug)]
struct Inside {
    pid: i32,
    folder: PathBuf,
    entries: ReadDir,
}

impl DescriptorWalk {
    /// Looks for these sockets from now on, and for no others. What is remembered of where some are
    /// is looked at at once.
    pub fn ask(&mut self, sockets: impl IntoIterator<Item = OpenSocket>) -> WalkResult {
        let before = std::mem::take(&mut self.wanted);
        let mut found = WalkResult::default();
        for socket in sockets {
            if let Some(owner) = self.remembered(socket.inode) {
                found.owners.push((socket.inode, owner));
                continue;
            }
            let whole_round = before
                .get(&socket.inode)
                .is_some_and(|&(_, whole_round)| whole_round);
            self.wanted
                .insert(socket.inode, (socket.uid, whole_round || !self.begun));
        }

        found
    }

    /// Whether nothing is looked for.
    pub fn is_idle(&self) -> bool {
        self.wanted.is_empty()
    }

    /// Goes on for so long.
    pub fn go_on(&mut self, time: Duration) -> WalkResult {
        let deadline = Instant::now() + time;
        let mut found = WalkResult::default();
        loop {
            if self.wanted.is_empty() {
                self.end_round();
                return found;
            }
            if !self.begun {
                self.begin_round();
            }
            if self.inside.is_some() {
                self.look_inside(&mut found);
            } else if let Some(pid) = self.ahead.pop() {
                self.enter(pid);
            } else {
                self.note_missing(&mut found);
            }
            if Instant::now() >= deadline {
                return found;
            }
        }
    }

    fn begin_round(&mut self) {
        self.begun = true;
        for whole_round in self.wanted.values_mut() {
            whole_round.1 = true;
        }
        let mut processes: Vec<(bool, i32)> = match fs::read_dir("/proc") {
            Ok(entries) => entries
                .filter_map(Result::ok)
                .filter_map(|entry| {
                    let pid = entry.file_name().to_str()?.parse().ok()?;
                    let user = entry.metadata().ok()?.uid();
                    let likely = self.wanted.values().any(|&(uid, _)| uid == user);
                    Some((likely, pid))
                })
                .collect(),
            Err(_) => Vec::new(),
        };
        // Taken from the end: users of sockets first, and young processes before old ones.
        processes.sort_unstable();
        self.ahead = processes.into_iter().map(|(_, pid)| pid).collect();
    }

    fn end_round(&mut self) {
        self.begun = false;
        self.ahead = Vec::new();
        self.inside = None;
    }

    /// No process has those open that were looked for from the beginning of the round on.
    fn note_missing(&mut self, found: &mut WalkResult) {
        let nobodys = &mut found.nobodys;
        self.wanted.retain(|&inode, &mut (_, whole_round)| {
            if whole_round {
                nobodys.push(inode);
            }
            !whole_round
        });
        self.end_round();
    }

    fn enter(&mut self, pid: i32) {
        let folder = PathBuf::from(format!("/proc/{pid}/fd"));
        // Otherwise it has ended, and its sockets are closed, or it is out of sight.
        if let Ok(entries) = fs::read_dir(&folder) {
            self.inside = Some(Inside {
                pid,
                folder,
                entries,
            });
        }
    }

    /// Looks at some descriptors of a process.
    fn look_inside(&mut self, found: &mut WalkResult) {
        let Some(mut inside) = self.inside.take() else {
            return;
        };
        for _ in 0..AT_ONCE {
            let entry = match inside.entries.next() {
                None | Some(Err(_)) => return,
                Some(Ok(entry)) => entry,
            };
            let link = inside.folder.join(entry.file_name());
            let Some(inode) = socket_at(&link) else {
                continue;
            };
            if self.wanted.contains_key(&inode)
                && let Some(name) = name(inside.pid)
            {
                self.wanted.remove(&inode);
                let pid = inside.pid;
                found
                    .owners
                    .push((inode, SocketOwner::Process { pid, name }));
                if self.places.len() >= MOST_PLACES {
                    self.places.clear();
                }
                self.places.insert(inode, Place { pid, link });
            }
        }
        self.inside = Some(inside);
    }

    fn remembered(&mut self, inode: u32) -> Option<SocketOwner> {
        let place = self.places.get(&inode)?;
        if socket_at(&place.link) == Some(inode)
            && let Some(name) = name(place.pid)
        {
            let pid = place.pid;
            return Some(SocketOwner::Process { pid, name });
        }
        self.places.remove(&inode);

        None
    }
}

/// The inode of the socket that a descriptor stands for, if it does.
fn socket_at(link: &Path) -> Option<u32> {
    let target = readlink(link).ok()?;
    let target = target.to_str()?;

    target
        .strip_prefix("socket:[")?
        .strip_suffix(']')?
        .parse()
        .ok()
}

/// The name of a process, which may be any 15 bytes.
fn name(pid: i32) -> Option<String> {
    let mut name = Vec::new();
    io::Read::read_to_end(
        &mut File::open(format!("/proc/{pid}/comm")).ok()?,
        &mut name,
    )
    .ok()?;
    if name.last() == Some(&b'\n') {
        name.pop();
    }

    Some(String::from_utf8_lossy(&name).into_owned())
}
#[cfg(test)]
mod tests {
    use std::{
        net::{TcpListener, UdpSocket},
        os::fd::{AsFd, AsRawFd},
    };

    use super::*;

    fn inode(socket: &impl AsRawFd) -> u32 {
        let link = PathBuf::from(format!("/proc/self/fd/{}", socket.as_raw_fd()));
        socket_at(&link).expect("is a socket")
    }

    fn open(inode: u32) -> OpenSocket {
        let uid = nix::unistd::geteuid().as_raw();
        OpenSocket { inode, uid }
    }

    fn this_process(inode: u32, found: &[(u32, SocketOwner)]) -> bool {
        let pid = i32::try_from(std::process::id()).expect("a pid");
        found.iter().any(|(found, owner)| {
            *found == inode && matches!(owner, SocketOwner::Process { pid: of, .. } if *of == pid)
        })
    }

    #[test]
    fn a_walk_in_pieces_finds_all_and_ends() {
        let sockets: Vec<_> = (0..3)
            .map(|_| UdpSocket::bind("127.0.0.1:0").expect("binds"))
            .collect();
        let many: Vec<_> = (0..500)
            .map(|_| sockets[0].as_fd().try_clone_to_owned().expect("a copy"))
            .collect();
        let nobodys = u32::MAX;
        let mut walk = DescriptorWalk::default();
        assert!(walk.is_idle());
        let asked = sockets.iter().map(inode).chain([nobodys]).map(open);
        assert_eq!(walk.ask(asked), WalkResult::default());
        let (mut owners, mut missing, mut pieces) = (Vec::new(), Vec::new(), 0);
        while !walk.is_idle() {
            let found = walk.go_on(Duration::ZERO);
            owners.extend(found.owners);
            missing.extend(found.nobodys);
            pieces += 1;
        }
        assert!(pieces > 500 / AT_ONCE, "{pieces} pieces");
        for socket in &sockets {
            assert!(this_process(inode(socket), &owners), "{owners:?}");
        }
        assert_eq!(missing, [nobodys]);
        drop(many);
    }

    #[test]
    fn who_is_asked_about_in_the_middle_of_a_round_is_not_missed() {
        let first = u32::MAX;
        let socket = TcpListener::bind("127.0.0.1:0").expect("binds");
        let mut walk = DescriptorWalk::default();
        walk.ask([open(first)]);
        // This process may be behind already.
        while walk.ahead.len() > 1 || !walk.begun {
            walk.go_on(Duration::ZERO);
        }
        walk.ask([open(first), open(inode(&socket))]);
        let (mut owners, mut missing) = (Vec::new(), Vec::new());
        while !walk.is_idle() {
            let found = walk.go_on(Duration::ZERO);
            owners.extend(found.owners);
            missing.extend(found.nobodys);
        }
        assert!(this_process(inode(&socket), &owners), "{owners:?}");
        assert_eq!(missing, [first]);
    }

    #[test]
    fn a_place_is_remembered_while_it_is_true() {
        let socket = TcpListener::bind("127.0.0.1:0").expect("binds");
        let inode = inode(&socket);
        let mut walk = DescriptorWalk::default();
        walk.ask([open(inode)]);
        while !walk.is_idle() {
            walk.go_on(Duration::from_millis(20));
        }
        let found = walk.ask([open(inode)]);
        assert!(this_process(inode, &found.owners), "{found:?}");
        assert!(walk.is_idle());
        drop(socket);
        assert_eq!(walk.ask([open(inode)]), WalkResult::default());
        assert!(!walk.is_idle());
    }
}
