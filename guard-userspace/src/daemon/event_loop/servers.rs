//! Servers whose address another process may have.
//!
//! Any local user can listen on a TCP port. So the guard does not wait for one: it comes first, and
//! what it says of itself is served as soon as there is room for it.

use std::{net::SocketAddr, path::PathBuf, sync::Arc, time::Duration};

use tokio::{
    net::TcpListener,
    select,
    sync::{mpsc, watch},
    time::sleep,
};

use super::ended;
use crate::{
    api::{
        control,
        http::{self, Shared},
    },
    base::failure::Failure,
    daemon::observer::Observer,
};

/// How long to wait before a place is tried again.
const AGAIN: Duration = Duration::from_secs(2);

/// Serves metrics on `address` from when they can be, until the end.
pub(super) async fn metrics(
    bound: Result<TcpListener, Failure>,
    address: SocketAddr,
    (observer, shared): (Arc<Observer>, Shared),
    stopped: watch::Receiver<()>,
) {
    let again = || http::bind(address);
    let note = |missing: Option<String>| {
        observer.update(|knowledge| knowledge.metrics_missing.clone_from(&missing));
    };
    let what = format!("metrics on {address}");
    select! {
        () = ended(stopped.clone()) => {}
        listener = when_free(&what, bound, again, note) => {
            http::run(listener, shared, ended(stopped)).await;
        }
    }
}

/// Answers on the control socket from when it can be, until the end.
pub(super) async fn control(
    bound: Result<control::ControlSocket, Failure>,
    path: PathBuf,
    (shared, actions): (Shared, mpsc::Sender<control::ActionRequest>),
    stopped: watch::Receiver<()>,
) {
    let again = || control::ControlSocket::bind(&path);
    let what = format!("the control socket {}", path.display());
    select! {
        () = ended(stopped.clone()) => {}
        socket = when_free(&what, bound, again, |_| {}) => {
            control::run(socket, shared, actions, ended(stopped)).await;
        }
    }
}

/// What is bound, at once or after another process has left. Tells `note` why it is not, and when it is.
async fn when_free<T, Bound: Future<Output = Result<T, Failure>>>(
    what: &str,
    first: Result<T, Failure>,
    again: impl Fn() -> Bound,
    note: impl Fn(Option<String>),
) -> T {
    let mut missing: Option<String> = None;
    let mut bound = first;
    loop {
        match bound {
            Ok(place) => {
                if missing.is_some() {
                    tracing::info!("{what}: served from now on");
                    note(None);
                }
                return place;
            }
            Err(failure) => {
                let why = failure.to_string();
                if missing.as_ref() != Some(&why) {
                    tracing::warn!("guarding without {what}, which is tried again: {why}");
                    note(Some(why.clone()));
                    missing = Some(why);
                }
            }
        }
        sleep(AGAIN).await;
        bound = again().await;
    }
}

#[cfg(test)]
mod tests {
    use std::{cell::RefCell, collections::VecDeque};

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_place_is_tried_until_it_is_free() {
        let taken = || Err(Failure::unavailable("taken"));
        let denied = || Err(Failure::not_permitted("denied"));
        let results = RefCell::new(VecDeque::from([taken(), denied(), denied(), Ok(7)]));
        let noted = RefCell::new(Vec::new());
        let again = || {
            let next = results.borrow_mut().pop_front().expect("is free by now");
            std::future::ready(next)
        };
        let note = |missing| noted.borrow_mut().push(missing);
        let place = when_free("it", taken(), again, note).await;
        assert_eq!(place, 7);
        let noted = noted.into_inner();
        let said: Vec<_> = noted.iter().map(|why| why.as_deref()).collect();
        assert_eq!(said, [Some("taken"), Some("denied"), None]);
    }
}
