//! What is known of who has sockets open. To find out may take long, so nothing waits for it: what is
//! not known yet is asked for, and comes by message.

use std::{
    collections::{HashMap, HashSet},
    io::ErrorKind,
    os::fd::{AsFd, OwnedFd},
    time::Duration,
};

use tokio::{
    io::{Interest, unix::AsyncFd},
    time::{Instant, timeout},
};

use super::Listener;
use crate::host::socket_owners::{
    OpenSocket, OwnerHelper, OwnersFound, SocketOwner, WalkResult, helper,
};

/// Sockets that are asked about at a time. The others have their turn when these are known.
const MOST: usize = 4096;

/// For how long an answer is true: a socket may be handed on to another process.
const TRUE_FOR: Duration = Duration::from_secs(60);
/// For how long a process that was not found is not looked for again.
const MISSING_FOR: Duration = Duration::from_secs(600);
/// How long to wait for a name before its place is left empty.
const PATIENCE: Duration = Duration::from_secs(10);

/// What is known of a socket.
#[derive(Debug)]
struct Known {
    since: Instant,
    who: Who,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Who {
    /// Some process.
    Process(SocketOwner),
    /// No process that could be looked into.
    Nobody,
}

/// What is known of who has sockets open.
#[derive(Debug)]
pub struct OwnerNames {
    // Let go of first: the helper waits for who ends with it.
    channel: Option<AsyncFd<OwnedFd>>,
    helper: OwnerHelper,
    known: HashMap<u32, Known>,
    /// Whether a process has said that it has begun. The next one that does is another.
    begun: bool,
    /// What was asked and is not answered yet.
    asked: HashSet<u32>,
    /// Since when an owner in question is not known.
    waiting: Option<Instant>,
}

impl OwnerNames {
    /// Knows what `helper` will find out. To be called in a tokio runtime.
    pub fn new(mut helper: OwnerHelper) -> Self {
        let channel = helper.take_channel().and_then(|channel| {
            // SAFETY: the value owns the descriptor, and nothing else closes it or puts another
            // in its place.
            unsafe { AsyncFd::register_with_interest(channel, Interest::READABLE) }.ok()
        });
        let mut names = Self {
            channel,
            helper,
            ..Self::of_nobody()
        };
        if names.channel.is_none() {
            names.lose();
        }

        names
    }

    /// Knows nothing, and asks no process.
    pub(super) fn of_nobody() -> Self {
        Self {
            channel: None,
            helper: OwnerHelper::none(),
            known: HashMap::new(),
            begun: false,
            asked: HashSet::new(),
            waiting: None,
        }
    }

    /// Notes what was found out elsewhere.
    pub(super) fn note_found(&mut self, found: WalkResult) {
        let since = Instant::now();
        let owners = found.owners.into_iter();
        let owners = owners.map(|(inode, owner)| (inode, Who::Process(owner)));
        let nobodys = found.nobodys.into_iter();
        let nobodys = nobodys.map(|inode| (inode, Who::Nobody));
        let known = owners.chain(nobodys);
        self.known
            .extend(known.map(|(inode, who)| (inode, Known { since, who })));
    }

    /// Forgets all but those of these listeners, and asks for what is not known of them. Does not
    /// wait.
    pub fn ask_about<'a>(&mut self, listeners: impl IntoIterator<Item = &'a Listener>) {
        let sockets: Vec<OpenSocket> = listeners
            .into_iter()
            .flat_map(|listener| listener.sockets.iter().copied())
            .filter(|socket| socket.inode != 0)
            .collect();
        let inodes: HashSet<u32> = sockets.iter().map(|socket| socket.inode).collect();
        self.known.retain(|inode, _| inodes.contains(inode));
        if sockets
            .iter()
            .all(|socket| self.known.contains_key(&socket.inode))
        {
            self.waiting = None;
        } else {
            self.waiting.get_or_insert_with(Instant::now);
        }
        let mut question: Vec<OpenSocket> = sockets
            .into_iter()
            .filter(|socket| self.is_in_question(socket.inode))
            .collect();
        // Owners that are not known at all come before those that may have changed.
        question.sort_by_key(|socket| self.known.contains_key(&socket.inode));
        question.truncate(MOST);
        let asked: HashSet<u32> = question.iter().map(|socket| socket.inode).collect();
        if asked == self.asked {
            return;
        }
        self.send(&question, asked);
    }

    /// Waits for a message, and notes what it says. Returns whether there will be no other unless
    /// an owner is asked about.
    pub async fn hear(&mut self) -> bool {
        let Some(channel) = &self.channel else {
            return std::future::pending().await;
        };
        let answer = loop {
            let Ok(mut ready) = channel.readable().await else {
                break Err(ErrorKind::BrokenPipe.into());
            };
            match helper::answer(channel.as_fd()) {
                Err(error) if error.kind() == ErrorKind::WouldBlock => ready.clear_ready(),
                answer => break answer,
            }
        };
        match answer {
            Ok(OwnersFound::Begun) => {
                if !std::mem::replace(&mut self.begun, true) {
                    return false;
                }
                // Who was asked has ended.
                self.asked.clear();
            }
            Ok(OwnersFound::Owners(owners)) => {
                for (inode, owner) in owners {
                    self.note(inode, Who::Process(owner));
                }
            }
            Ok(OwnersFound::Nobodys(inodes)) => {
                for inode in inodes {
                    self.note(inode, Who::Nobody);
                }
            }
            Err(_) => self.lose(),
        }

        self.asked.is_empty()
    }

    /// Waits until these listeners are known, but no longer than `time`.
    pub async fn wait_for(&mut self, listeners: &[Listener], time: Duration) {
        let known = async {
            self.ask_about(listeners);
            while !self.is_settled() {
                if self.hear().await {
                    self.ask_about(listeners);
                }
            }
        };
        // What is not known by then comes later.
        let _ = timeout(time, known).await;
    }

    /// Whether all that were asked about last are known, or it takes too long to wait for them.
    pub fn is_settled(&self) -> bool {
        self.channel.is_none() || self.waiting.is_none_or(|since| since.elapsed() >= PATIENCE)
    }

    /// Names the owners of listeners, as far as they are known.
    pub fn name(&self, listeners: &mut [Listener]) {
        for listener in listeners {
            listener.owner = self.owner(&listener.sockets);
        }
    }

    fn owner(&self, sockets: &[OpenSocket]) -> SocketOwner {
        let who = |socket: &OpenSocket| self.known.get(&socket.inode).map(|known| &known.who);
        if let Some(owner) = sockets.iter().find_map(|socket| match who(socket) {
            Some(Who::Process(owner)) => Some(owner),
            _ => None,
        }) {
            return owner.clone();
        }
        SocketOwner::Unknown
    }

    fn is_in_question(&self, inode: u32) -> bool {
        self.known.get(&inode).is_none_or(|known| {
            let true_for = match known.who {
                Who::Process(_) => TRUE_FOR,
                Who::Nobody => MISSING_FOR,
            };
            known.since.elapsed() >= true_for
        })
    }

    fn note(&mut self, inode: u32, who: Who) {
        // What was not asked is forgotten already.
        if self.asked.remove(&inode) {
            let since = Instant::now();
            self.known.insert(inode, Known { since, who });
        }
    }

    fn send(&mut self, question: &[OpenSocket], asked: HashSet<u32>) {
        let Some(channel) = &self.channel else {
            return;
        };
        match helper::ask(channel.as_fd(), question) {
            Ok(()) => self.asked = asked,
            // It is asked again at the next look.
            Err(error) if error.kind() == ErrorKind::WouldBlock => self.asked.clear(),
            Err(_) => self.lose(),
        }
    }

    fn lose(&mut self) {
        self.channel = None;
        self.helper = OwnerHelper::none();
        self.asked.clear();
        tracing::warn!(
            "the processes that name listeners are gone: none that is found from now on has a name; \
             restart portguard"
        );
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::{
        guard::listeners::{find, tests::guarded},
        host::sockets::{HostSocket, SocketState},
    };

    fn listener(inode: u32, uid: u32) -> Vec<Listener> {
        let socket = HostSocket {
            transport: guard_common::frame::transport::Transport::Udp,
            local: "0.0.0.0:4789".parse().expect("an address"),
            remote: "0.0.0.0:0".parse().expect("an address"),
            state: SocketState::Close,
            device: 0,
            inode,
            uid,
            ipv6_only: false,
        };
        find(&[socket], &guarded(), &[], &BTreeSet::new())
    }

    fn names(known: &[(u32, Who)]) -> OwnerNames {
        let known = known.iter().map(|(inode, who)| {
            let since = Instant::now();
            let who = who.clone();
            (*inode, Known { since, who })
        });
        OwnerNames {
            known: known.collect(),
            ..OwnerNames::of_nobody()
        }
    }

    #[test]
    fn whose_a_listener_is() {
        let sshd = SocketOwner::Process {
            pid: 812,
            name: "sshd".to_owned(),
        };
        // name, what is known of inode 7, its user, whose it is
        let table = [
            ("nothing", None, 0, SocketOwner::Unknown),
            ("a process", Some(Who::Process(sshd.clone())), 1000, sshd),
            ("nobody", Some(Who::Nobody), 0, SocketOwner::Unknown),
        ];
        for (name, known, uid, owner) in table {
            let known: Vec<_> = known.into_iter().map(|who| (7, who)).collect();
            let mut listeners = listener(7, uid);
            names(&known).name(&mut listeners);
            assert_eq!(listeners[0].owner, owner, "{name}");
        }
    }

    #[test]
    fn what_nobody_asks_about_is_forgotten() {
        let mut names = names(&[(7, Who::Nobody)]);
        names.ask_about(&listener(7, 0));
        assert_eq!(names.known.len(), 1);
        assert!(names.is_settled());
        names.ask_about(&listener(8, 0));
        assert!(names.known.is_empty());
    }
}
