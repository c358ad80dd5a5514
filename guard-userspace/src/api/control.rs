//! What `portguard status`, `flows` and `reload` are told, over a Unix socket that is root's alone.

mod client;
mod json;
mod request;
mod socket;

use std::{io, time::Duration};

use anyhow::Context;
use axum::{
    Router,
    body::{Body, Bytes},
    extract::State,
    http::header::CONTENT_TYPE,
    response::{IntoResponse, Response},
    routing::{get, post},
};
use futures_util::{
    StreamExt,
    stream::{self, BoxStream},
};
use tokio::{net::UnixStream, sync::mpsc, time::timeout};

pub use self::{
    client::{Client, Question},
    json::{
        AlarmJson, FlowJson, FlowTotalsJson, InterfaceJson, ListenerJson, PortsJson,
        SCHEMA_VERSION, StatusJson,
    },
    request::{Peer, Reload, Reply},
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

/// How long nothing is said while an answer is worked out.
const QUIET: Duration = Duration::from_millis(500);

/// Serves `/status` and `/flows` until `stop`, and passes on what is asked of the daemon by `/reload`;
/// then returns within 100 ms, and the socket is gone.
pub async fn run(
    socket: ControlSocket,
    shared: Shared,
    reloads: mpsc::Sender<Reload>,
    stop: impl Future<Output = ()>,
) {
    let ControlSocket { listener, file } = socket;
    let routes = |client: &UnixStream| routes(shared.clone(), reloads.clone(), Peer::of(client));
    let room = descriptors::room(connections::MOST_ROOM);
    let limits = Limits {
        connections: LIMITS.share_of(room, 1, 4),
        ..LIMITS
    };
    connections::serve(listener, routes, limits, stop).await;
    drop(file);
}

/// What a client with these credentials may ask.
pub(crate) fn routes(shared: Shared, reloads: mpsc::Sender<Reload>, peer: Peer) -> Router {
    let questions = Router::new()
        .route(Question::Status.path(), get(status))
        .route(Question::Flows.path(), get(flows))
        .with_state(shared);
    let changes = Router::new()
        .route(Question::Reload.path(), post(reload))
        .with_state((reloads, peer));

    questions.merge(changes)
}

async fn reload(State((reloads, peer)): State<(mpsc::Sender<Reload>, Peer)>) -> Response {
    patiently(async move {
        let reply = request::ask(&reloads, peer).await;
        let reply = reply.context("the daemon is ending")?;
        Ok(stream::iter([Ok(Bytes::from(serde_json::to_vec(&reply)?))]).boxed())
    })
    .await
}

async fn status(State(shared): State<Shared>) -> Response {
    patiently(async move {
        let glance = shared.glance().await?;
        let text = serde_json::to_vec(&StatusJson::from(&*glance.observation))?;
        Ok(stream::iter([Ok(Bytes::from(text))]).boxed())
    })
    .await
}

/// The rows are written as JSON piece by piece, as fast as the client reads: a million flows are
/// in memory once, as rows, and never as text.
async fn flows(State(shared): State<Shared>) -> Response {
    patiently(async move { Ok(stream::iter(JsonRows::new(shared.flows().await?)).boxed()) }).await
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
