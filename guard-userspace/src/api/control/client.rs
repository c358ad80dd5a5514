//! How the CLI asks a running guard.

use std::{
    io::{self, ErrorKind, Write},
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context, anyhow};
use axum::{
    body::{Body, BodyDataStream, Bytes},
    http::{Method, Request, StatusCode, header::HOST},
};
use futures_util::TryStreamExt;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use serde::de::DeserializeOwned;
use tokio::{
    net::UnixStream,
    runtime,
    time::{Instant, sleep, timeout},
};

use super::{Action, FlowJson, Reply, StatusJson};
use crate::{
    base::failure::{Exit, Failure},
    host::descriptors,
};

/// How long nothing may be heard. A daemon that has much to look at says so in between.
const PATIENCE: Duration = Duration::from_secs(3);
/// How long to wait before another attempt to connect where too many others do.
const BUSY: Duration = Duration::from_millis(20);

/// What a running guard can be asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Question {
    /// Everything but the single flows.
    Status,
    /// The single flows.
    Flows,
}

impl Question {
    /// Where the answer is found.
    pub(super) const fn path(self) -> &'static str {
        match self {
            Self::Status => "/status",
            Self::Flows => "/flows",
        }
    }
}

/// What is sent to the daemon: how, where, and what is said beside that.
struct Message {
    method: Method,
    path: String,
    body: Bytes,
}

impl From<Question> for Message {
    fn from(question: Question) -> Self {
        Self {
            method: Method::GET,
            path: question.path().to_owned(),
            body: Bytes::new(),
        }
    }
}

impl From<&Action> for Message {
    fn from(action: &Action) -> Self {
        Self {
            method: Method::POST,
            path: format!("/{}", action.name()),
            body: Bytes::new(),
        }
    }
}

/// Asks the guard that listens on a socket. Blocks, so it cannot be used inside a runtime.
#[derive(Clone, Debug)]
pub struct Client {
    socket: PathBuf,
}

impl Client {
    /// A client of the guard on `socket`.
    pub fn new(socket: &Path) -> Self {
        Self {
            socket: socket.to_owned(),
        }
    }

    /// Asks for everything but the single flows.
    ///
    /// # Errors
    /// Exit code 69 when no guard answers, 77 when a privilege is missing, else 1.
    pub fn status(&self) -> Result<StatusJson, Failure> {
        self.parse(Question::Status.into())
    }

    /// Asks for the single flows.
    ///
    /// # Errors
    /// As [`status`](Self::status).
    pub fn flows(&self) -> Result<Vec<FlowJson>, Failure> {
        self.parse(Question::Flows.into())
    }

    /// Has the daemon do something, and returns what it says of it.
    ///
    /// # Errors
    /// As [`status`](Self::status), and what the daemon answers; of a reload exit code 78 when the file is
    /// at fault, 2 when there is none.
    pub fn act(&self, action: &Action) -> Result<String, Failure> {
        let reply: Reply = self.parse(action.into())?;
        match Exit::from_code(reply.code) {
            Exit::Fine => Ok(reply.text),
            code => Err(Failure::new(code, anyhow!(reply.text))),
        }
    }

    /// Copies the answer to `out` while it arrives.
    ///
    /// # Errors
    /// As [`status`](Self::status), and when `out` cannot be written to.
    pub fn copy(&self, question: Question, out: &mut impl Write) -> Result<(), Failure> {
        self.exchange(&question.into(), out)
    }

    fn exchange(&self, message: &Message, out: &mut impl Write) -> Result<(), Failure> {
        descriptors::require(descriptors::FOR_A_QUESTION)?;
        let runtime = runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(|error| Failure::new(Exit::Runtime, error))?;

        runtime.block_on(async {
            let mut answer = self.ask(message).await?;
            while let Some(piece) = self.next(&mut answer).await? {
                out.write_all(&piece)
                    .map_err(|error| Failure::new(Exit::Runtime, error))?;
            }
            Ok(())
        })
    }

    fn parse<T: DeserializeOwned>(&self, message: Message) -> Result<T, Failure> {
        let mut text = Vec::new();
        self.exchange(&message, &mut text)?;

        serde_json::from_slice(&text).map_err(|error| {
            let error = anyhow!(error).context(format!(
                "the daemon at {} gave an answer that is not understood",
                self.socket.display()
            ));
            Failure::new(Exit::Runtime, error).remedy("use the portguard that the daemon runs")
        })
    }

    async fn ask(&self, message: &Message) -> Result<Answer, Failure> {
        let began = Instant::now();
        loop {
            let stream = self.connect().await?;
            let daemon = stream.peer_cred().ok().and_then(|peer| peer.pid());
            let response = timeout(PATIENCE, send(stream, message))
                .await
                .unwrap_or_else(|_| Err(silence(daemon)))
                .map_err(|error| self.broken(error))?;
            let status = response.status();
            let body = Body::new(response.into_body()).into_data_stream();
            let mut body = Answer { body, daemon };
            match status {
                StatusCode::OK => return Ok(body),
                // Too many others read at this moment.
                StatusCode::SERVICE_UNAVAILABLE if began.elapsed() < PATIENCE => {
                    sleep(BUSY).await;
                    continue;
                }
                _ => {}
            }

            let mut reason = Vec::new();
            while let Some(piece) = self.next(&mut body).await? {
                reason.extend_from_slice(&piece);
            }
            return Err(Failure::runtime(format!(
                "the daemon at {} cannot answer {}: {status} {}",
                self.socket.display(),
                message.path,
                String::from_utf8_lossy(&reason)
            )));
        }
    }

    /// Connects, and waits where many others do at once.
    async fn connect(&self) -> Result<UnixStream, Failure> {
        let connected = timeout(PATIENCE, async {
            loop {
                match UnixStream::connect(&self.socket).await {
                    Err(error) if error.kind() == ErrorKind::WouldBlock => sleep(BUSY).await,
                    connected => break connected,
                }
            }
        });

        connected
            .await
            .map_err(|_| self.broken(anyhow!("it takes no more connections")))?
            .map_err(|error| self.unreachable(error))
    }

    async fn next(&self, answer: &mut Answer) -> Result<Option<Bytes>, Failure> {
        timeout(PATIENCE, answer.body.try_next())
            .await
            .map_err(|_| silence(answer.daemon))
            .and_then(|piece| piece.context("it ends early"))
            .map_err(|error| self.broken(error))
    }

    fn unreachable(&self, error: io::Error) -> Failure {
        let socket = self.socket.display();
        match error.kind() {
            ErrorKind::PermissionDenied => Failure::new(
                Exit::NotPermitted,
                anyhow!(error).context(format!("cannot ask the daemon at {socket}")),
            )
            .remedy("run this as root"),
            _ => Failure::new(
                Exit::Unavailable,
                anyhow!(error).context(format!("no daemon answers at {socket}")),
            )
            .remedy("start it with portguard run, or name its socket with --control-socket"),
        }
    }

    fn broken(&self, error: anyhow::Error) -> Failure {
        let error = error.context(format!(
            "the daemon at {} gave no whole answer",
            self.socket.display()
        ));

        Failure::new(Exit::Runtime, error).remedy("see what it logged, then ask again")
    }
}

/// An answer while it comes, and whose it is.
struct Answer {
    body: BodyDataStream,
    daemon: Option<i32>,
}

/// Why nothing is heard of a daemon.
fn silence(daemon: Option<i32>) -> anyhow::Error {
    let heard = format!("nothing within {} s", PATIENCE.as_secs());
    let Some(pid) = daemon.filter(|pid| *pid > 0) else {
        return anyhow!("{heard}");
    };
    let state = procfs::process::Process::new(pid)
        .and_then(|process| process.stat())
        .map(|stat| stat.state);

    match state {
        Ok('T' | 't') => anyhow!("{heard}: process {pid} is stopped, kill -CONT {pid} wakes it"),
        _ => anyhow!("{heard} from process {pid}"),
    }
}

async fn send(
    stream: UnixStream,
    message: &Message,
) -> anyhow::Result<hyper::Response<hyper::body::Incoming>> {
    let request = Request::builder()
        .method(&message.method)
        .uri(&message.path)
        .header(HOST, "portguard")
        .body(Body::from(message.body.clone()))?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    // It ends with the answer.
    tokio::spawn(connection);

    Ok(sender.send_request(request).await?)
}
