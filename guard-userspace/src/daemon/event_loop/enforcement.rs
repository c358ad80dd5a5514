//! What is in force, and the change of it that is under way.
//!
//! A change asks the kernel who listens and which flows there are before it is in force, and may ask
//! again afterwards. It waits for the answers aside: everything else goes on meanwhile, and what is
//! asked for next takes its place.

use std::{
    mem,
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::sync::Notify;

use super::{
    RunRequest, messages,
    ports::PortsInForce,
    reload::{Reloading, STAYS},
    surveys::Question,
};
use crate::{
    api::{
        control::{Action, ActionRequest},
        snapshot::LoadedConfig,
    },
    base::failure::Failure,
    config::{self, Mode, Settings},
    daemon::{log, observer::Observer},
    guard::{
        alarms::AlarmKind,
        lifecycle::{self, Guard, Known, Learn, Preexisting},
        listeners::{OwnerNames, Survey},
    },
};

/// What is in force, and what is about to be.
pub(super) struct Enforcement {
    pub(super) settings: Settings,
    pub(super) ports: PortsInForce,
    pub(super) guard: Guard,
    pub(super) names: OwnerNames,
    pub(super) observer: Arc<Observer>,
    sweep_now: Arc<Notify>,
    /// What is under way.
    change: Option<Change>,
    /// What it waits for.
    pub(super) question: Question<Answer>,
    /// Whether the answer is of no use any more.
    superseded: bool,
}

/// A change that is under way.
struct Change {
    why: Why,
    settings: Settings,
    /// The ports that it puts in force.
    next: PortsInForce,
    /// When it was noticed.
    began: Instant,
    stage: Stage,
}

/// What has changed.
enum Why {
    /// What the kernel says of its ports.
    Range,
    /// What something listens on, or the kernel receives on.
    Exposures,
    /// The configuration file.
    Reload(Reloading),
}

/// How far it is.
enum Stage {
    /// Who listens on ports that become guarded may have to be known.
    Listeners,
    /// Flows on them have to be known, once there is a change that was begun.
    Flows(Option<lifecycle::Change>),
    /// It is in force, and not all flows were known in time.
    Rest(Done),
}

/// What has come into force, beside what was before.
struct Done {
    settings: Settings,
    ports: PortsInForce,
    /// How long it took since it was noticed.
    took: Duration,
    /// What was learned of flows until then.
    learned: Preexisting,
}

/// What a change has asked for.
pub(super) enum Answer {
    Listeners(Survey),
    Flows(Known),
    Rest(Preexisting),
}

impl Enforcement {
    pub(super) fn new(
        (settings, ports): (Settings, PortsInForce),
        guard: Guard,
        names: OwnerNames,
        (observer, sweep_now): (Arc<Observer>, Arc<Notify>),
    ) -> Self {
        Self {
            settings,
            ports,
            guard,
            names,
            observer,
            sweep_now,
            change: None,
            question: Question::default(),
            superseded: false,
        }
    }

    /// Whether a change is under way.
    pub(super) const fn is_changing(&self) -> bool {
        self.change.is_some()
    }

    /// Follows what the kernel says of its ports, also while a change is under way.
    pub(super) fn follow_range(&mut self) {
        if let Some(change) = &self.change {
            // Who asks for the ports of now waits already.
            if let Ok(Some(_)) = change.next.wanted(&change.settings) {
                self.supersede();
            }
            return;
        }
        match self.ports.wanted(&self.settings) {
            Ok(None) => self.guard.alarms().clear("", AlarmKind::Range),
            Ok(Some(next)) => self.begin(Why::Range, self.settings.clone(), next),
            Err(failure) => self.alarm(&failure),
        }
    }

    /// Puts exposures in force when they are others than those in force, and returns whether they
    /// are. No change is under way.
    pub(super) fn apply_exposures(&mut self) -> bool {
        if self.guard.ports() == Some(&self.ports.guarded()) {
            return false;
        }
        self.begin(Why::Exposures, self.settings.clone(), self.ports.clone());

        true
    }

    /// Does what is asked for over the control socket. No change is under way.
    pub(super) fn act(&mut self, start: &RunRequest, request: ActionRequest) {
        tracing::info!("{}: asked for by {}", request.action.name(), request.peer);
        match request.action {
            Action::Reload => self.reload(start, Some(request)),
        }
    }

    /// Reads the configuration file anew, for who has `asked` or for SIGHUP. What cannot be read leaves
    /// everything as it is. No change is under way.
    pub(super) fn reload(&mut self, start: &RunRequest, asked: Option<ActionRequest>) {
        let waited_for = asked.is_some();
        let reloading = Reloading::new(asked);
        if start.config.is_none() && waited_for {
            let failure = Failure::usage("the running guard has no configuration file to read");
            return reloading.refuse(failure.remedy("start it with --config FILE"));
        }
        let wanted = match start.settings() {
            Ok(wanted) => wanted,
            Err(failure) => return self.reloaded(reloading, Err(failure.within(STAYS))),
        };
        let reloaded = self.settings.reloaded(&wanted);
        match self.ports.wanted(&reloaded) {
            Ok(next) => {
                let changes = self.settings.changes(&wanted);
                let reloading = reloading.brings(changes, next.is_some());
                let next = next.unwrap_or_else(|| self.ports.clone());
                self.begin(Why::Reload(reloading), reloaded, next);
            }
            Err(failure) => self.reloaded(reloading, Err(failure.within(STAYS))),
        }
    }

    fn begin(&mut self, why: Why, settings: Settings, next: PortsInForce) {
        let stage = match why {
            // What listens is in these ports already.
            Why::Exposures => Stage::Flows(None),
            Why::Range | Why::Reload(_) => Stage::Listeners,
        };
        self.change = Some(Change {
            why,
            settings,
            next,
            began: Instant::now(),
            stage,
        });
        self.advance();
    }

    /// The kernel's ports are others than those that the change under way puts in force.
    fn supersede(&mut self) {
        let Some(Change {
            why,
            settings,
            stage,
            ..
        }) = self.change.take()
        else {
            return;
        };
        self.superseded = self.question.is_asked();
        if let Stage::Rest(done) = stage {
            // Sweeps put back what was left out.
            self.conclude(why, &done, Ok(Preexisting::default()));
            return self.follow_range();
        }
        self.guard.give_up();
        match (self.ports.wanted(&settings), why) {
            (Ok(next), Why::Reload(reloading)) => {
                let why = Why::Reload(reloading.with_other_ports(next.is_some()));
                self.begin(why, settings, next.unwrap_or_else(|| self.ports.clone()));
            }
            (Ok(Some(next)), Why::Range | Why::Exposures) => {
                self.begin(Why::Range, settings, next);
            }
            // They are as before.
            (Ok(None), Why::Range) => self.guard.alarms().clear("", AlarmKind::Range),
            (Ok(None), why @ Why::Exposures) => self.begin(why, settings, self.ports.clone()),
            (Err(failure), why) => self.fail(why, failure),
        }
    }

    /// Takes what the change under way has waited for.
    pub(super) fn take(&mut self, answer: anyhow::Result<Answer>) {
        if mem::take(&mut self.superseded) {
            return self.advance();
        }
        let Some(mut change) = self.change.take() else {
            return;
        };
        let noted = match (answer, change.stage) {
            (Ok(Answer::Listeners(found)), Stage::Listeners) => self
                .admit(&mut change.next, &change.settings, found)
                .map(|()| Stage::Flows(None)),
            (Ok(Answer::Flows(known)), Stage::Flows(Some(begun))) => {
                let ports = (&change.settings, &change.next);
                self.finish(&begun, known, ports, change.began)
            }
            (Ok(Answer::Rest(learned)), Stage::Rest(done)) => {
                return self.conclude(change.why, &done, Ok(learned));
            }
            (Err(error), Stage::Rest(done)) => {
                return self.conclude(change.why, &done, Err(error));
            }
            (Err(error), _) => Err(error.into()),
            (Ok(_), _) => Err(Failure::runtime("the answer to another question")),
        };
        match noted {
            Ok(stage) => {
                self.change = Some(Change { stage, ..change });
                self.advance();
            }
            Err(failure) => self.fail(change.why, failure),
        }
    }

    /// Goes on with the change under way until it is over, or waits for an answer.
    fn advance(&mut self) {
        while let Some(change) = self.change.take() {
            let stage = match change.stage {
                Stage::Listeners if !self.admits(&change) => Ok(Stage::Flows(None)),
                Stage::Listeners => {
                    // Once the last answer has come, if that is still waited for.
                    let question = change.next.ask_for_listeners(&change.settings);
                    self.question.ask(|| Ok(Answer::Listeners(question()?.1)));
                    self.change = Some(Change {
                        stage: Stage::Listeners,
                        ..change
                    });
                    return;
                }
                Stage::Flows(None) => {
                    let (settings, ports) = (&change.settings, change.next.guarded());
                    let quickly = matches!(change.why, Why::Exposures);
                    match self.guard.begin(settings, &ports, quickly) {
                        Err(error) => Err(error.into()),
                        Ok(begun) if !begun.asks() => {
                            let ports = (&change.settings, &change.next);
                            self.finish(&begun, Known::default(), ports, change.began)
                        }
                        Ok(_) if self.question.is_asked() => {
                            self.guard.give_up();
                            self.change = Some(Change {
                                stage: Stage::Flows(None),
                                ..change
                            });
                            return;
                        }
                        Ok(begun) => {
                            let question = begun.question();
                            self.question.ask(|| question().map(Answer::Flows));
                            Ok(Stage::Flows(Some(begun)))
                        }
                    }
                }
                Stage::Rest(done) if !self.question.is_asked() => {
                    return self.conclude(change.why, &done, Ok(Preexisting::default()));
                }
                stage @ (Stage::Flows(Some(_)) | Stage::Rest(_)) => {
                    self.change = Some(Change { stage, ..change });
                    return;
                }
            };
            match stage {
                Ok(stage) => self.change = Some(Change { stage, ..change }),
                Err(failure) => self.fail(change.why, failure),
            }
        }
    }

    /// Whether a change has to know who listens.
    fn admits(&self, change: &Change) -> bool {
        change.next.grow_from(&self.ports) || self.enforces(&change.settings)
    }

    /// Whether these settings drop what passes now.
    fn enforces(&self, settings: &Settings) -> bool {
        self.settings.mode == Mode::Monitor && settings.mode == Mode::Enforce
    }

    fn admit(
        &mut self,
        next: &mut PortsInForce,
        settings: &Settings,
        found: Survey,
    ) -> Result<(), Failure> {
        // A listener that somebody is being served by keeps its port when packets begin to be dropped,
        // as if the range had grown.
        let before = (!self.enforces(settings)).then_some(&self.ports);
        let guard = &self.guard;
        let has_flows = |transport, port| guard.has_flows(transport, port);

        next.admit(settings, before, found, &mut self.names, has_flows)
    }

    /// Puts in force what was begun, and asks for the flows that there was no time for.
    fn finish(
        &mut self,
        begun: &lifecycle::Change,
        known: Known,
        (settings, next): (&Settings, &PortsInForce),
        began: Instant,
    ) -> Result<Stage, Failure> {
        let Some(rest) = self.guard.finish(begun, &known)? else {
            return Ok(Stage::Flows(None));
        };
        let took = began.elapsed();
        let settings = mem::replace(&mut self.settings, settings.clone());
        let ports = mem::replace(&mut self.ports, next.clone());
        self.show_ports();
        self.observer.update(|knowledge| {
            knowledge.mode = self.settings.mode;
            knowledge.trusted = self.settings.trust.iter().copied().collect();
        });
        if rest != Learn::Nothing {
            let question = begun.rest(rest);
            self.question.ask(|| question().map(Answer::Rest));
        }

        Ok(Stage::Rest(Done {
            settings,
            ports,
            took,
            learned: known.learned,
        }))
    }

    /// Says what has come into force, and what was learned for it, so that the log says that first.
    fn conclude(&mut self, why: Why, done: &Done, rest: anyhow::Result<Preexisting>) {
        let mut preexisting = done.learned.clone();
        let learned = rest.map(|rest| preexisting.add(rest)).map_err(|error| {
            Failure::from(error).within("the change is in force, but not all flows are known")
        });
        messages::learned_more(&preexisting);
        match why {
            Why::Range => {
                self.ports.announce(&done.ports, done.took);
                self.warn_of(done);
                self.guard.alarms().clear("", AlarmKind::Range);
                if let Err(failure) = learned {
                    tracing::error!("{failure}");
                }
            }
            Why::Exposures => {
                if let Err(failure) = learned {
                    self.ports.complain(&failure);
                }
            }
            Why::Reload(reloading) => {
                if reloading.has_other_ports() {
                    self.ports.announce(&done.ports, done.took);
                }
                log::configure(self.settings.log_level, self.settings.log_format);
                // Longer timers bring flows back to life whose ports no sweep has marked since they died.
                self.sweep_now.notify_one();
                if reloading.has_other_settings() {
                    messages::in_force(
                        &self.guard.attachments(),
                        &self.settings,
                        &self.ports.local,
                    );
                } else if reloading.has_other_ports() {
                    self.warn_of(done);
                }
                self.reloaded(reloading, learned);
            }
        }
    }

    /// Shows and says what has come of a reload.
    fn reloaded(&self, reloading: Reloading, done: Result<(), Failure>) {
        self.observer.update(|knowledge| {
            let config = &mut knowledge.config;
            match &done {
                Ok(()) => *config = LoadedConfig::now(&self.settings),
                Err(_) => config.last_reload_successful = false,
            }
        });
        reloading.over(done);
    }

    /// What was in force stays in force.
    fn fail(&mut self, why: Why, failure: Failure) {
        self.guard.give_up();
        match why {
            Why::Range => self.alarm(&failure),
            Why::Exposures => self.ports.complain(&failure),
            Why::Reload(reloading) => self.reloaded(reloading, Err(failure.within(STAYS))),
        }
    }

    fn alarm(&self, failure: &Failure) {
        let text = format!("the ports in force stay: {failure}");
        self.guard.alarms().raise("", AlarmKind::Range, &text);
    }

    /// Says what is left open or shut by the ports that are in force now, and was not before.
    fn warn_of(&self, done: &Done) {
        let told = config::warnings(&done.settings, &done.ports.local);
        for warning in config::warnings(&self.settings, &self.ports.local) {
            if !told.contains(&warning) {
                tracing::warn!("{warning}");
            }
        }
    }

    /// Shows which ports are in force.
    pub(super) fn show_ports(&self) {
        self.observer.update(|knowledge| {
            knowledge.local = self.ports.local.clone();
            knowledge.exposed = self.ports.exposed();
            knowledge.blocked = self.ports.blocked.clone();
        });
    }
}
