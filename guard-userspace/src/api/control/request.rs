//! What a client asks the daemon to change.

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

/// What the daemon may be asked to do.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Action {
    /// To read the configuration file anew.
    Reload,
}

impl Action {
    /// What it is called on the command line, in the log, and as a path of the control socket.
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Reload => "reload",
        }
    }
}

/// An action that a client waits for.
#[derive(Debug)]
pub struct ActionRequest {
    /// Who asks.
    pub peer: Peer,
    /// What is to be done.
    pub action: Action,
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

/// Passes the action on, and waits for what comes of it. Nothing comes of it when the daemon ends.
pub(super) async fn ask(
    actions: &mpsc::Sender<ActionRequest>,
    peer: Peer,
    action: Action,
) -> Option<Reply> {
    let (answer, outcome) = oneshot::channel();
    let request = ActionRequest {
        peer,
        action,
        answer,
    };
    actions.send(request).await.ok()?;

    outcome.await.ok()
}
