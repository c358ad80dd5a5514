//! What `portguard status`, `flows` and the commands that change something are told, over a Unix socket
//! that is root's alone.

mod client;
mod json;
mod request;
mod socket;

use std::{io, sync::Arc, time::Duration};

use anyhow::Context;
use axum::{
    Router,
    body::{Body, Bytes},
    extract::State,
    http::{StatusCode, header::CONTENT_TYPE},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use futures_util::{
    Stream, StreamExt,
    stream::{self, BoxStream},
};
use tokio::{
    net::UnixStream,
    sync::{OwnedSemaphorePermit, Semaphore, mpsc},
    time::timeout,
};

pub use self::{
    client::{Client, Question},
    json::{
        AlarmJson, FlowJson, FlowTotalsJson, InterfaceJson, ListenerJson, PortsJson,
        SCHEMA_VERSION, StatusJson,
    },
    request::{Action, ActionRequest, Peer, Reply},
    socket::ControlSocket,
};
use crate::{
    api::{
        control::json::JsonRows,
        http::{
            Shared,
            connections::{self, Limits},
            failed,
        },
    },
    host::descriptors,
};

/// Only root asks here, and may page through a million flows at leisure.
const LIMITS: Limits = Limits {
    connections: 32,
    lifetime: Duration::from_secs(600),
    request: Duration::from_secs(5),
    patience: Duration::from_secs(5),
};

/// Connections that are kept for changes: however slowly others read, a change finds room at once.
const FOR_CHANGES: usize = 4;

/// How long nothing is said while an answer is worked out.
const QUIET: Duration = Duration::from_millis(500);

/// Serves `/status` and `/flows` until `stop`, and passes on to the daemon what is asked of it, such as
/// by `/reload`; then returns within 100 ms, and the socket is gone.
pub async fn run(
    socket: ControlSocket,
    shared: Shared,
    actions: mpsc::Sender<ActionRequest>,
    stop: impl Future<Output = ()>,
) {
    let ControlSocket { listener, file } = socket;
    let room = descriptors::room(connections::MOST_ROOM);
    let reading = LIMITS.share_of(room, 1, 4);
    let readers = Readers::new(shared, reading);
    let routes = |client: &UnixStream| routes(readers.clone(), actions.clone(), Peer::of(client));
    let limits = Limits {
        connections: reading + FOR_CHANGES,
        ..LIMITS
    };
    connections::serve(listener, routes, limits, stop).await;
    drop(file);
}

/// What clients read, and how many may do so at once.
#[derive(Clone)]
pub(crate) struct Readers {
    shared: Shared,
    places: Arc<Semaphore>,
}

impl Readers {
    /// So many at once.
    pub(crate) fn new(shared: Shared, most: usize) -> Self {
        Self {
            shared,
            places: Arc::new(Semaphore::new(most)),
        }
    }

    /// A place, which is free again when the answer has been read.
    fn place(&self) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.places).try_acquire_owned().ok()
    }
}

/// The answer where there is no place.
fn crowded() -> Response {
    (StatusCode::SERVICE_UNAVAILABLE, "too many readers").into_response()
}

/// What a client with these credentials may ask.
pub(crate) fn routes(readers: Readers, actions: mpsc::Sender<ActionRequest>, peer: Peer) -> Router {
    let questions = Router::new()
        .route(Question::Status.path(), get(status))
        .route(Question::Flows.path(), get(flows))
        .with_state(readers);
    let changes = Router::new()
        .route("/reload", post(reload))
        .with_state((actions, peer));

    questions.merge(changes)
}

/// Who asks for a change, and by which way it gets to the daemon.
type Asker = State<(mpsc::Sender<ActionRequest>, Peer)>;

async fn reload(asker: Asker) -> Response {
    act(asker, Action::Reload).await
}

async fn act(State((actions, peer)): Asker, action: Action) -> Response {
    patiently(async move {
        let reply = request::ask(&actions, peer, action).await;
        let reply = reply.context("the daemon is ending")?;
        Ok(stream::iter([Ok(Bytes::from(serde_json::to_vec(&reply)?))]).boxed())
    })
    .await
}

async fn status(State(readers): State<Readers>) -> Response {
    let Some(place) = readers.place() else {
        return crowded();
    };
    patiently(async move {
        let glance = readers.shared.glance().await?;
        let text = serde_json::to_vec(&StatusJson::from(&*glance.observation))?;
        Ok(keeping(place, stream::iter([Ok(Bytes::from(text))])))
    })
    .await
}

/// The rows are written as JSON piece by piece, as fast as the client reads: a million flows are
/// in memory once, as rows, and never as text.
async fn flows(State(readers): State<Readers>) -> Response {
    let Some(place) = readers.place() else {
        return crowded();
    };
    patiently(async move {
        let rows = JsonRows::new(readers.shared.flows().await?);
        Ok(keeping(place, stream::iter(rows)))
    })
    .await
}

/// The pieces, with which the place is let go of.
fn keeping(
    place: OwnedSemaphorePermit,
    pieces: impl Stream<Item = serde_json::Result<Bytes>> + Send + 'static,
) -> Pieces {
    pieces
        .inspect(move |_| {
            let _ = &place;
        })
        .boxed()
}

/// Pieces of JSON.
type Pieces = BoxStream<'static, serde_json::Result<Bytes>>;

/// Answers with what `answer` comes to. Where that takes a while, the answer begins with white space,
/// which means nothing in JSON: so a client knows that its question is being worked on, and can give up on a
/// daemon that does nothing.
async fn patiently(
    answer: impl Future<Output = anyhow::Result<Pieces>> + Send + 'static,
) -> Response {
    let mut answer = Box::pin(answer);
    let body = match timeout(QUIET, &mut answer).await {
        Ok(Ok(pieces)) => Body::from_stream(pieces),
        Ok(Err(error)) => return failed(&error),
        Err(_) => {
            let pieces = stream::unfold(Some(answer), |answer| async {
                let mut answer = answer?;
                match timeout(QUIET, &mut answer).await {
                    Ok(Ok(pieces)) => Some((pieces, None)),
                    // It is too late to say so otherwise.
                    Ok(Err(error)) => {
                        let error = serde_json::Error::io(io::Error::other(error));
                        Some((stream::iter([Err(error)]).boxed(), None))
                    }
                    Err(_) => {
                        let nothing = Ok(Bytes::from_static(b" "));
                        Some((stream::iter([nothing]).boxed(), Some(answer)))
                    }
                }
            });
            Body::from_stream(pieces.flatten())
        }
    };

    ([(CONTENT_TYPE, "application/json")], body).into_response()
}

#[cfg(test)]
pub(crate) mod tests;
