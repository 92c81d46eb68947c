//! Logs to standard error, as lines for people or as JSON.

use std::fmt;
use std::sync::OnceLock;

use tracing::{Event, Level, Subscriber};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::registry::LookupSpan;

use crate::config::settings::{Log, LogFormat};
use crate::output::stdout::{Colour, Paint};

static FORMAT: OnceLock<LogFormat> = OnceLock::new();

/// The format logging was started with.
pub(crate) fn format() -> LogFormat {
    FORMAT.get().copied().unwrap_or(LogFormat::Text)
}

/// Starts logging without a configuration, for failures that come before it.
pub(crate) fn start_by_default() {
    let json = std::env::var_os("PGRECALL_LOG_FORMAT").is_some_and(|format| format == "json");
    let format = if json { LogFormat::Json } else { LogFormat::Text };
    start(&Log { level: "info".to_owned(), format });
}

/// Starts logging; a second call changes nothing.
pub(crate) fn start(log: &Log) {
    if FORMAT.set(log.format).is_err() {
        return;
    }
    // What libraries say of their own inner life is of interest only when somebody looks for it.
    let directives = match log.level.as_str() {
        // The client of KMS shows whole requests at its lowest level, and a secret is in one.
        "trace" => "trace,aws_smithy_runtime=debug,aws_smithy_http_client=debug,aws_sdk_kms=debug,\
                    hyper=debug,hyper_util=debug,h2=debug"
            .to_owned(),
        level @ ("debug" | "error") => level.to_owned(),
        level => format!("error,pgrecall={level}"),
    };
    let builder = tracing_subscriber::fmt()
        .with_env_filter(EnvFilter::new(directives))
        .with_writer(std::io::stderr)
        .log_internal_errors(false)
        .with_ansi(Colour::of_stderr() == Colour::Ansi);
    // The error would be that a subscriber is there already, and there is none: see above.
    let _ = match log.format {
        LogFormat::Text => builder.event_format(Line { colour: Colour::of_stderr() }).try_init(),
        LogFormat::Json => builder.json().flatten_event(true).with_target(false).try_init(),
    };
}

/// `2026-11-22 14:03:07.123Z WARN  message field=value`, the time in UTC.
struct Line {
    colour: Colour,
}

impl<S, N> FormatEvent<S, N> for Line
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
        let now = jiff::Timestamp::now().strftime("%Y-%m-%d %H:%M:%S%.3fZ");
        let level = *event.metadata().level();
        let paint = match level {
            Level::ERROR => Paint::Bad,
            Level::WARN => Paint::Warning,
            Level::INFO => Paint::Good,
            _ => Paint::Faint,
        };
        let name = self.colour.paint(paint, &format!("{level:<5}"));
        write!(writer, "{now} {name} ")?;
        context.field_format().format_fields(writer.by_ref(), event)?;
        writeln!(writer)
    }
}
