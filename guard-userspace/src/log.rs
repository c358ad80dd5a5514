//! Lines on stderr: the text alone, with the level where it asks for attention.

use tracing::{Event, Level, Subscriber, level_filters::LevelFilter};
use tracing_subscriber::{
    Layer,
    filter::Targets,
    fmt::{self, FmtContext, FormatEvent, FormatFields, format::Writer},
    layer::SubscriberExt,
    registry::LookupSpan,
    util::SubscriberInitExt,
};

use crate::text::one_line;

/// Sends what is logged to stderr, from `info` on.
pub fn to_stderr() {
    // aya warns of what it tries, such as to lift the limit of locked memory. Where that matters, an
    // error follows, which says all of it in one line.
    let levels = Targets::new()
        .with_default(LevelFilter::INFO)
        .with_target("aya::", LevelFilter::ERROR);
    let lines = fmt::layer()
        .with_writer(std::io::stderr)
        .event_format(Plain);
    // Also what is logged through the crate `log`. Fails where a test has set one already.
    let _ = tracing_subscriber::registry()
        .with(lines.with_filter(levels))
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
    ) -> std::fmt::Result {
        match *event.metadata().level() {
            Level::ERROR => writer.write_str("error: ")?,
            Level::WARN => writer.write_str("warning: ")?,
            Level::INFO | Level::DEBUG | Level::TRACE => {}
        }
        // Whoever is named in it has chosen the name.
        let mut text = String::new();
        context
            .field_format()
            .format_fields(Writer::new(&mut text), event)?;

        writeln!(writer, "{}", one_line(&text))
    }
}
