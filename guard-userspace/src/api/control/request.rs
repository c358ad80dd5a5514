//! What a client asks the daemon to do.

use std::fmt;

use serde::{Deserialize, Serialize};
use tokio::{
    net::UnixStream,
    sync::{mpsc, oneshot},
};

use crate::base::failure::{Exit, Failure};

/// Who asks.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Peer(Option<(u32, Option<i32>)>);

impl Peer {
    /// The process at the other end.
    pub fn of(client: &UnixStream) -> Self {
        let credentials = client.peer_cred().ok();

        Self(credentials.map(|credentials| (credentials.uid(), credentials.pid())))
    }
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some((uid, Some(pid))) => write!(f, "uid {uid}, pid {pid}"),
            Some((uid, None)) => write!(f, "uid {uid}"),
            None => f.write_str("an unknown process"),
        }
    }
}

/// The wish that the configuration file is read anew.
#[derive(Debug)]
pub struct Reload {
    /// Who asks.
    pub peer: Peer,
    /// Where the outcome is waited for.
    pub answer: oneshot::Sender<Reply>,
}

/// What came of it.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Reply {
    /// The exit code of who has asked.
    pub code: u8,
    /// What was done, or why it was not.
    pub text: String,
}

impl From<Result<String, Failure>> for Reply {
    fn from(done: Result<String, Failure>) -> Self {
        match done {
            Ok(text) => Self {
                code: Exit::Fine as u8,
                text,
            },
            Err(failure) => Self {
                code: failure.code as u8,
                text: failure.to_string(),
            },
        }
    }
}

/// Passes the wish on, and waits for what comes of it. Nothing comes of it when the daemon ends.
pub(super) async fn ask(reloads: &mpsc::Sender<Reload>, peer: Peer) -> Option<Reply> {
    let (answer, outcome) = oneshot::channel();
    reloads.send(Reload { peer, answer }).await.ok()?;

    outcome.await.ok()
}
