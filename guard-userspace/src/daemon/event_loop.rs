//! The daemon: one loop over everything that can happen.

mod enforcement;
mod interface_surveys;
mod listener_surveys;
mod messages;
mod ports;
mod reload;
mod servers;
mod surveys;
mod sweeps;
mod turns;

use std::{
    cell::Cell,
    mem,
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant},
};

use futures_util::{
    FutureExt, StreamExt,
    stream::{Fuse, LocalBoxStream},
};
use tokio::{
    select,
    signal::unix::{Signal, SignalKind, signal},
    sync::{Notify, mpsc, watch},
    time::{Interval, MissedTickBehavior, interval, timeout},
};

use self::{
    enforcement::Enforcement, interface_surveys::InterfaceSurveys,
    listener_surveys::ListenerSurveys, ports::PortsInForce, turns::Turns,
};
use crate::{
    api::{control, http, snapshot::LoadedConfig},
    base::failure::Failure,
    bpf::{
        maps::{Readings, StateMemory},
        pins::Pins,
    },
    config::{ConfigLayer, Settings},
    daemon::{
        log,
        observer::{Knowledge, Observer},
    },
    guard::{
        fault_injection::Parts,
        lifecycle::{self, Guard},
        listeners::OwnerNames,
        sweep::Sweeper,
    },
    host::{
        descriptors, interfaces, lock::InstanceLock, namespace, privileges,
        socket_owners::OwnerHelper,
    },
};

/// How often the sysctls are read. A change must be in force within 300 ms, and nothing tells of
/// one: inotify does not fire on procfs.
const RANGE_EVERY: Duration = Duration::from_millis(50);

/// How often listeners are looked for.
const LISTENERS_EVERY: Duration = Duration::from_secs(5);

/// How often listeners are looked for where they are exposed while they listen. The kernel tells of
/// none that begins; to ask for those of TCP alone takes it some microseconds.
const LISTENING_EVERY: Duration = Duration::from_millis(100);

/// How often sockets are looked for in monitor mode, which asks about packets that they would lose.
const WAITING_EVERY: Duration = Duration::from_millis(250);

/// How often the interfaces are looked at even when nothing tells of a change.
const INTERFACES_EVERY: Duration = Duration::from_secs(2);

/// How often what the interfaces count is compared with what the programs count.
const COMPARE_EVERY: Duration = Duration::from_secs(1);

/// How often the links are looked at, of which the kernel tells nobody when they are detached.
const LINKS_EVERY: Duration = Duration::from_millis(200);

/// How long to wait after a change for those that belong to it.
const SETTLED: Duration = Duration::from_millis(50);

/// The rest between two looks at interfaces that keep changing, in times of what a look takes, and the
/// longest such rest: where hundreds come and go, each look takes a while.
const REST: u32 = 15;
const LONGEST_REST: Duration = Duration::from_millis(1500);

/// How long each server may take to end.
const FAREWELL: Duration = Duration::from_millis(150);

/// What a run was started with.
#[derive(Clone, Debug)]
pub struct RunRequest {
    /// What the flags say.
    pub flags: ConfigLayer,
    /// The configuration file.
    pub config: Option<PathBuf>,
}

impl RunRequest {
    fn settings(&self) -> Result<Settings, Failure> {
        Settings::load(&self.flags, self.config.as_deref())
    }
}

/// Guards until `shutdown`, then detaches, unless the settings say that the guard stays. The
/// calling thread keeps no other privileges than that takes, for good.
///
/// `helper` finds out who listens, which takes privileges that are given up here.
///
/// # Errors
/// Names what failed, on what, and the remedy. Nothing is left attached, pinned or listening then.
pub async fn run(
    start: RunRequest,
    parts: Parts,
    helper: OwnerHelper,
    shutdown: impl Future<Output = ()>,
) -> Result<(), Failure> {
    // Before anything else: a terminal that closes during the start must not end it half-way.
    let reload = signal(SignalKind::hangup()).map_err(anyhow::Error::from)?;
    tokio::pin!(shutdown);
    let started = select! {
        biased;
        () = &mut shutdown => None,
        started = Daemon::start(start, parts, helper) => Some(started?),
    };
    // What a start that is not over has attached goes with it.
    let Some((mut daemon, turns)) = started else {
        return Ok(());
    };
    let mut events = Events {
        reload,
        turns,
        range: every(RANGE_EVERY),
        listeners: every(LISTENERS_EVERY),
        listening: every(LISTENING_EVERY),
        waiting: every(WAITING_EVERY),
        interfaces: every(INTERFACES_EVERY),
        links: every(LINKS_EVERY),
        compare: every(COMPARE_EVERY),
        changes: interfaces::changes()?.boxed_local().fuse(),
        changed: false,
        began: Instant::now(),
        looked: Duration::ZERO,
    };
    daemon.interfaces.ready(&daemon.enforcement);
    {
        let turned = Turned::default();
        let work = daemon.work(&mut events, &turned);
        tokio::pin!(work);
        // Whatever is under way then, such as a look at all sockets, goes with it.
        select! {
            biased;
            () = &mut shutdown => {}
            () = messages::watchdog(&turned) => {}
            () = &mut work => {}
        }
    }
    messages::stopping();
    daemon.stop().await;

    Ok(())
}

fn every(period: Duration) -> Interval {
    let mut interval = interval(period);
    interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
    interval
}

/// When something that has happened was last dealt with. The range is read many times a second, so it
/// is not long ago while the daemon works.
struct Turned(Cell<Instant>);

impl Turned {
    fn note(&self) {
        self.0.set(Instant::now());
    }

    fn ago(&self) -> Duration {
        self.0.get().elapsed()
    }
}

impl Default for Turned {
    fn default() -> Self {
        Self(Cell::new(Instant::now()))
    }
}

/// What can happen.
struct Events {
    reload: Signal,
    /// What is asked for over the control socket.
    turns: Turns,
    range: Interval,
    listeners: Interval,
    listening: Interval,
    waiting: Interval,
    interfaces: Interval,
    links: Interval,
    compare: Interval,
    changes: Fuse<LocalBoxStream<'static, ()>>,
    /// Whether interfaces have changed since they were looked at.
    changed: bool,
    /// When the last look at them began, and how long it took.
    began: Instant,
    looked: Duration,
}

struct Daemon {
    start: RunRequest,
    enforcement: Enforcement,
    interfaces: InterfaceSurveys,
    listeners: ListenerSurveys,
    stop: watch::Sender<()>,
    servers: Vec<tokio::task::JoinHandle<()>>,
    // Last, so that it is let go of last.
    _lock: InstanceLock,
}

impl Daemon {
    async fn start(
        start: RunRequest,
        parts: Parts,
        helper: OwnerHelper,
    ) -> Result<(Self, Turns), Failure> {
        let settings = start.settings()?;
        log::configure(settings.log_level, settings.log_format);
        privileges::require()?;
        privileges::lift_memory_limit();
        let namespace = namespace::name()?;
        let netlink = interfaces::connect()?;
        // A wrong name is worth more than a second instance.
        lifecycle::find_wanted(&settings, &interfaces::list(&netlink).await?)?;
        let interfaces = settings.iface.len() + settings.egress_iface.len();
        descriptors::require(descriptors::for_a_guard(interfaces))?;
        let lock = InstanceLock::take(&namespace)?;
        let pins = Pins::of_layout(&settings.pin_dir, &namespace, parts.layout);
        let earlier = StateMemory::of_earlier(&pins);
        let mut names = OwnerNames::new(helper);
        let ports = PortsInForce::start(&settings, earlier.as_ref(), &mut names).await?;
        // The guard maps it anew, for as long as it lives.
        drop(earlier);
        let metrics = http::bind(settings.metrics_listen).await;
        let control = control::ControlSocket::bind(&settings.control_socket).await;
        // Another daemon there is a mistake; what another user has put there is no reason not to guard.
        let control = match control {
            Err(failure) if !control::ControlSocket::is_anothers(&settings.control_socket) => {
                return Err(failure);
            }
            control => control,
        };

        let mut notes = Vec::new();
        let guarded = ports.guarded();
        let mut guard =
            Guard::record(&settings, &guarded, &netlink, pins, parts, &mut notes).await?;
        let preexisting = guard
            .enforce(&settings, &guarded, &netlink, &mut notes)
            .await?;
        for note in notes {
            tracing::warn!("{note}");
        }
        messages::learned(&preexisting);

        let knowledge = Knowledge {
            mode: settings.mode,
            config: LoadedConfig::now(&settings),
            local: ports.local.clone(),
            exposed: ports.exposed(),
            trusted: settings.trust.iter().copied().collect(),
            blocked: ports.blocked.clone(),
            interfaces: guard.attachments(),
            links: guard.links(),
            slots: guard.slots(),
            advice: None,
            metrics_missing: None,
            failed_sweeps: 0,
            sweep_took: None,
            ports: None,
        };
        let readings = Readings::open(guard.pins())?;
        let observer = Arc::new(Observer::new(
            readings,
            guard.clock(),
            Arc::clone(guard.alarms()),
            knowledge,
        ));
        observer.set_guarded(guard.guards_all());
        let sweeper = Sweeper::open(
            guard.pins(),
            guard.state(),
            guard.clock(),
            guard.timers(),
            parts,
        )?;
        // Before there are other threads, and before anybody is answered.
        let loading = guard.prepare_missing(&settings)?;
        privileges::keep_only(&privileges::to_attach_again(), loading)?;
        guard.load_missing();
        // On a thread that keeps no more either.
        let netlink = interfaces::connect_aside()?;
        log::write_aside();
        let (stop, stopped) = watch::channel(());
        let sweep_now = Arc::new(Notify::new());
        let sweeps = sweeps::run(
            sweeper,
            Arc::clone(&observer),
            Arc::clone(&sweep_now),
            ended(stopped.clone()),
        );
        let (asked, requests) = mpsc::channel(1);
        let shared = http::Shared::new(Arc::clone(&observer) as Arc<_>);
        let servers = vec![
            tokio::spawn(servers::metrics(
                metrics,
                settings.metrics_listen,
                (Arc::clone(&observer), shared.clone()),
                stopped.clone(),
            )),
            tokio::spawn(servers::control(
                control,
                settings.control_socket.clone(),
                (shared, asked),
                stopped,
            )),
            tokio::spawn(sweeps),
        ];

        let shown = (observer, sweep_now);
        let daemon = Self {
            start,
            enforcement: Enforcement::new((settings, ports), guard, names, shown),
            interfaces: InterfaceSurveys::new(netlink),
            listeners: ListenerSurveys::default(),
            stop,
            servers,
            _lock: lock,
        };

        Ok((daemon, Turns::new(requests)))
    }

    /// Follows whatever happens, one thing after the other, without end. What the kernel is asked is
    /// asked aside, so that everything else goes on meanwhile. Changes of what is in force follow each
    /// other.
    async fn work(&mut self, events: &mut Events, turned: &Turned) {
        loop {
            turned.note();
            let Events {
                reload,
                turns,
                range,
                listeners,
                listening,
                waiting,
                interfaces,
                links,
                compare,
                changes,
                changed,
                began,
                looked,
            } = events;
            let enforcement = &mut self.enforcement;
            let (about, sockets) = (&mut self.interfaces, &mut self.listeners);
            let changing = enforcement.is_changing();
            select! {
                // What comes of it is in the log.
                _ = reload.recv(), if !changing => enforcement.reload(&self.start, None),
                request = turns.next(changing) => enforcement.act(&self.start, request),
                _ = range.tick() => enforcement.follow_range(),
                answer = enforcement.question.answer() => enforcement.take(answer),
                _ = links.tick() => about.follow_links(enforcement),
                _ = compare.tick() => about.count(enforcement),
                counted = about.statistics.answer() => about.compare(counted, enforcement),
                _ = listeners.tick() => sockets.watch(enforcement),
                found = sockets.listeners.answer(), if !changing => {
                    sockets.apply(found, enforcement);
                }
                _ = listening.tick() => sockets.follow_listening(enforcement),
                found = sockets.listening.answer(), if !changing => {
                    listener_surveys::apply_listening(found, enforcement);
                }
                found = sockets.tunnels.answer(), if !changing => {
                    listener_surveys::apply_tunnels(found, enforcement);
                }
                loaded = enforcement.guard.next_loaded() => {
                    let mut notes = Vec::new();
                    enforcement.guard.equip(loaded, &mut notes);
                    about.show(notes, enforcement);
                    interfaces.reset_immediately();
                }
                found = sockets.waiting.answer() => {
                    listener_surveys::apply_waiting(found, enforcement);
                }
                _ = waiting.tick() => sockets.follow_waiting(enforcement),
                all = enforcement.names.hear() => if all {
                    listeners.reset();
                    sockets.watch(enforcement);
                },
                // Changes that keep coming must not put the look off for ever.
                Some(()) = changes.next(), if !*changed => {
                    *changed = true;
                    interfaces.reset_after((*looked * REST).clamp(SETTLED, LONGEST_REST));
                }
                // What changes while a look is under way is seen by the next one.
                _ = interfaces.tick(), if !about.interfaces.is_asked() => {
                    let mut told = mem::take(changed);
                    while changes.next().now_or_never().flatten().is_some() {
                        told = true;
                    }
                    *began = Instant::now();
                    about.look(told);
                }
                found = about.interfaces.answer() => {
                    about.follow(found, enforcement).await;
                    *looked = began.elapsed();
                    sockets.follow_tunnels();
                }
            }
        }
    }

    /// Takes the programs off, unless they stay, and then lets the servers finish.
    async fn stop(self) {
        // First, so that no sweep takes maps for lost that go with the guard. Nobody reads the
        // channel any more when this fails.
        let _ = self.stop.send(());
        let Enforcement {
            guard, settings, ..
        } = self.enforcement;
        let attachments = guard.attachments();
        let end = guard.end(settings.keep_attached);
        messages::stopped(&attachments, end);
        for server in self.servers {
            // A sweep cannot be stopped half-way; anyone who waits for us need not wait for it.
            let _ = timeout(FAREWELL, server).await;
        }
    }
}

async fn ended(mut stopped: watch::Receiver<()>) {
    // An error means that the sender is gone, which says the same.
    let _ = stopped.changed().await;
}
