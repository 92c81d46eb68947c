//! How a failure is told: plain lines to a person, log lines to PostgreSQL's log and to programs.

use std::io::Write as _;
use std::panic::PanicHookInfo;

use crate::config::settings::LogFormat;
use crate::contract::Contract;
use crate::failure::{Failure, Kind};
use crate::output::stdout::{Colour, Paint};
use crate::{hint, logging};

/// Tells the failure on standard error.
pub(crate) fn failure(contract: Contract, failure: &Failure) {
    let own = failure.hints.iter().map(String::as_str);
    let general = failure.hints.is_empty().then(|| hint::for_kind(failure.kind)).flatten();
    let hints: Vec<&str> = own.chain(general).collect();
    if contract == Contract::Person && logging::format() == LogFormat::Text {
        let colour = Colour::of_stderr();
        let mut text = format!("{} {failure}\n", colour.paint(Paint::Bad, "error:"));
        for hint in hints {
            text.push_str(&format!("{} {hint}\n", colour.paint(Paint::Heading, "hint:")));
        }
        write_stderr(&text);
        return;
    }
    logging::start_by_default();
    let kind = failure.kind.row().name;
    if hints.is_empty() {
        tracing::error!(kind, "{failure}");
    } else {
        tracing::error!(kind, hint = hints.join(" "), "{failure}");
    }
    if contract == Contract::PromotionFetch {
        tracing::error!(
            "wal fetch FAILED for a timeline's history at the end of recovery; PostgreSQL is told \
             that it is not there, and takes its own copy"
        );
    }
    if contract == Contract::StandbyFetch {
        tracing::error!(
            "wal fetch FAILED on a standby; PostgreSQL is told that the file is not there, so that it streams or asks \
             again (wal.standby_on_error = \"continue\")"
        );
    }
}

/// Writes to standard error; when that is gone, there is nobody left to tell.
pub(crate) fn write_stderr(text: &str) {
    let _ = std::io::stderr().lock().write_all(text.as_bytes());
}

/// What a caught panic counts as; the hook has told its message already.
pub(crate) fn of_panic() -> Failure {
    Failure::new(Kind::Internal, "a broken invariant ended the command")
}

/// The panic hook: one line with the place, and no exit of its own, since the exit code is the
/// contract's matter.
pub(crate) fn on_panic(info: &PanicHookInfo<'_>) {
    let payload = info.payload();
    let message = payload
        .downcast_ref::<&str>()
        .copied()
        .or_else(|| payload.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("unknown");
    let place = info.location().map(|at| format!("{}:{}", at.file(), at.line()));
    let place = place.unwrap_or_else(|| "an unknown place".to_owned());
    write_stderr(&format!("pgrecall: panic at {place}: {message}\n"));
    if std::env::var_os("RUST_BACKTRACE").is_some_and(|value| value != "0") {
        write_stderr(&format!("{}\n", std::backtrace::Backtrace::force_capture()));
    }
}
