//! Lines on stderr: the text alone, with the level where it asks for attention, or JSON. The journal
//! of systemd is told how much each matters.

mod queue;

use std::{
    fmt,
    fs::File,
    io,
    os::{fd::AsFd, unix::fs::MetadataExt},
    sync::atomic::{AtomicBool, AtomicU8, Ordering},
    time::SystemTime,
};

use nix::sys::signal::{SigHandler, Signal, signal};
use serde_json::json;
use tracing::{
    Event, Level, Metadata, Subscriber,
    field::{Field, Visit},
    level_filters::LevelFilter,
};
use tracing_subscriber::{
    Layer,
    filter::dynamic_filter_fn,
    fmt::{FmtContext, FormatEvent, FormatFields, format::Writer},
    layer::SubscriberExt,
    registry::LookupSpan,
    util::SubscriberInitExt,
};

use self::queue::Queue;
use crate::{
    base::{failure::Failure, text::one_line},
    config::{LogFormat, LogLevel},
};

/// Whether lines are JSON.
static JSON: AtomicBool = AtomicBool::new(false);

/// Which lines there are, as a [`LogLevel`].
static LEVEL: AtomicU8 = AtomicU8::new(LogLevel::Info as u8);

/// Whether stderr is the journal.
static JOURNAL: AtomicBool = AtomicBool::new(false);

/// Lines on their way to stderr.
static QUEUE: Queue = Queue::new();

/// Sends what is logged to stderr, from `info` on, until it is told otherwise.
pub fn to_stderr() {
    // Where stderr is a file that may grow no more (`ulimit -f`), a line is lost and counted. Otherwise
    // the signal would end the process.
    // SAFETY: no function of ours is called by the signal.
    let _ = unsafe { signal(Signal::SIGXFSZ, SigHandler::SigIgn) };
    JOURNAL.store(is_the_journal(), Ordering::Relaxed);
    let lines = tracing_subscriber::fmt::layer()
        .with_writer(|| Lines)
        .event_format(Line);
    // Also what is logged through the crate `log`. Fails where a test has set one already.
    let _ = tracing_subscriber::registry()
        .with(lines.with_filter(dynamic_filter_fn(|metadata, _| is_wanted(metadata))))
        .try_init();
}

/// Puts other settings in force.
pub fn configure(level: LogLevel, format: LogFormat) {
    LEVEL.store(level as u8, Ordering::Relaxed);
    JSON.store(format == LogFormat::Json, Ordering::Relaxed);
}

/// Has nobody wait for anyone who reads stderr from now on. What that takes no more waits in memory, and
/// what finds no room there is lost, and counted.
pub fn wait_no_more() {
    QUEUE.wait_no_more();
}

/// Leaves writing to a thread of its own. To be called when the calling thread has given up what no other
/// may keep.
pub fn write_aside() {
    QUEUE.write_aside();
}

/// Says what ends the process.
pub fn end(failure: &Failure) {
    say(&line(Level::ERROR, "", &failure.to_string()));
    finish();
}

/// Gives the last lines a moment to be read.
pub fn finish() {
    QUEUE.finish();
}

fn say(line_with_end: &str) {
    QUEUE.add(line_with_end, |lost| {
        let lines = if lost == 1 { "line was" } else { "lines were" };
        let text = format!("{lost} {lines} lost: nobody has read what is logged for a while");
        line(Level::WARN, "warning: ", &text)
    });
}

/// What writes whole lines into the queue.
struct Lines;

impl io::Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        say(&String::from_utf8_lossy(bytes));
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Whether stderr is what systemd has connected to the journal (systemd.exec(5)).
fn is_the_journal() -> bool {
    let identity = || {
        let file = File::from(io::stderr().as_fd().try_clone_to_owned().ok()?);
        let metadata = file.metadata().ok()?;
        Some(format!("{}:{}", metadata.dev(), metadata.ino()))
    };

    std::env::var("JOURNAL_STREAM").is_ok_and(|stream| Some(stream) == identity())
}

fn is_wanted(metadata: &Metadata<'_>) -> bool {
    let level = match LEVEL.load(Ordering::Relaxed) {
        0 => LevelFilter::ERROR,
        1 => LevelFilter::WARN,
        2 => LevelFilter::INFO,
        _ => LevelFilter::DEBUG,
    };
    let target = metadata.target();
    let most = if target.starts_with("aya::") || target.starts_with("netlink_proto") {
        // aya warns of what it tries, such as to lift the limit of locked memory. Where that matters,
        // an error follows, which says all of it in one line. Of changes that the kernel has lost
        // while hundreds of interfaces come and go, a look at all of them tells.
        LevelFilter::ERROR
    } else if target.starts_with("guard_userspace") || target.starts_with("portguard") {
        level
    } else {
        level.min(LevelFilter::INFO)
    };

    *metadata.level() <= most
}

struct Line;

impl<S, N> FormatEvent<S, N> for Line
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        _: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let mut message = Message::default();
        event.record(&mut message);
        let level = *event.metadata().level();
        let label = match level {
            Level::ERROR => "error: ",
            Level::WARN => "warning: ",
            Level::INFO | Level::DEBUG | Level::TRACE => "",
        };

        writer.write_str(&line(level, label, &message.0))
    }
}

/// The text of an event.
#[derive(Default)]
struct Message(String);

impl Visit for Message {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        use fmt::Write;

        // What crates log by `log` has fields that say where.
        let written = match field.name() {
            "message" => write!(self.0, "{value:?}"),
            name if name.starts_with("log.") => Ok(()),
            name => write!(self.0, " {name}={value:?}"),
        };
        debug_assert!(written.is_ok(), "a string takes everything");
    }
}

/// One line with its end. Remote hosts and local users choose some of the words, and must not begin another.
fn line(level: Level, label: &str, message: &str) -> String {
    let text = if JSON.load(Ordering::Relaxed) {
        json!({
            "time": humantime::format_rfc3339_millis(SystemTime::now()).to_string(),
            "level": word(level),
            "message": one_line(message),
        })
        .to_string()
    } else {
        format!("{label}{}", one_line(message))
    };
    if !JOURNAL.load(Ordering::Relaxed) {
        return format!("{text}\n");
    }

    // sd-daemon(3), by the numbers of syslog(3).
    let priority = match level {
        Level::ERROR => 3,
        Level::WARN => 4,
        Level::INFO => 6,
        Level::DEBUG | Level::TRACE => 7,
    };

    format!("<{priority}>{text}\n")
}

/// As the settings call it.
fn word(level: Level) -> &'static str {
    match level {
        Level::ERROR => "error",
        Level::WARN => "warning",
        Level::INFO => "info",
        Level::DEBUG | Level::TRACE => "debug",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_begins_no_line() {
        assert_eq!(line(Level::WARN, "warning: ", "a\nb"), "warning: a?b\n");
    }
}
