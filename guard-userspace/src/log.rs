//! Lines on stderr: the text alone, with the level where it asks for attention.

use std::fmt;

use tracing::{Event, Level, Subscriber, level_filters::LevelFilter};
use tracing_subscriber::{
    fmt::{FmtContext, FormatEvent, FormatFields, format::Writer},
    registry::LookupSpan,
    util::SubscriberInitExt,
};

/// Sends what is logged to stderr, from `info` on.
pub fn to_stderr() {
    // Also what is logged through the crate `log`. Fails where a test has set one already.
    let _ = tracing_subscriber::fmt()
        .with_max_level(LevelFilter::INFO)
        .with_writer(std::io::stderr)
        .event_format(Plain)
        .finish()
        .try_init();
}

struct Plain;

impl<S, N> FormatEvent<S, N> for Plain
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        context: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        match *event.metadata().level() {
            Level::ERROR => writer.write_str("error: ")?,
            Level::WARN => writer.write_str("warning: ")?,
            Level::INFO | Level::DEBUG | Level::TRACE => {}
        }
        context
            .field_format()
            .format_fields(writer.by_ref(), event)?;

        writeln!(writer)
    }
}
