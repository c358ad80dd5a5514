//! One sweep after the other.

use std::{sync::Arc, time::Instant};

use futures_util::FutureExt;
use tokio::sync::Notify;

use crate::{
    daemon::observer::Observer,
    guard::{alarms::AlarmKind, pressure::Watch, sweep::Sweeper},
};

/// Sweeps until `stop`, on a thread of its own, and says when the flow maps are too small. Does not
/// rest before a sweep that is asked for by `now`.
pub async fn run(
    mut sweeper: Sweeper,
    observer: Arc<Observer>,
    now: Arc<Notify>,
    stop: impl Future<Output = ()>,
) {
    let mut watch = Watch::default();
    tokio::pin!(stop);
    loop {
        let swept = tokio::task::spawn_blocking(move || (sweeper.sweep(), sweeper)).await;
        let Ok((swept, back)) = swept else {
            let text = "the sweep has panicked and is over: ports in use are not told apart any more, \
                        and lost flows are not put back; restart portguard";
            observer.alarms().raise("", AlarmKind::Sweep, text);
            return;
        };
        sweeper = back;
        let fits = match swept {
            Ok(swept) => {
                observer.alarms().clear("", AlarmKind::Sweep);
                let moment = Instant::now();
                let said = watch.note(&swept.loads, swept.scales, swept.evidence, moment);
                let advice = watch.advice().map(str::to_owned);
                observer.update(|knowledge| {
                    knowledge.advice.clone_from(&advice);
                    knowledge.ports = swept.ports;
                    knowledge.sweep_took = Some(swept.took);
                });
                match (said, &advice) {
                    (Some(said), Some(_)) => tracing::warn!("{said}"),
                    (Some(said), None) => tracing::info!("{said}"),
                    (None, _) => {}
                }
                swept.fits
            }
            // Its maps go with the guard.
            Err(_) if (&mut stop).now_or_never().is_some() => return,
            Err(error) => {
                observer.update(|knowledge| knowledge.failed_sweeps += 1);
                let text = format!("ports stay marked as in use: {error:#}");
                observer.alarms().raise("", AlarmKind::Sweep, &text);
                true
            }
        };
        tokio::select! {
            () = &mut stop => return,
            () = now.notified() => {}
            () = tokio::time::sleep(sweeper.rest(fits)) => {}
        }
    }
}
