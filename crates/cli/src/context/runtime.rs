//! Runtimes, and what signals do to long commands.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

use pgrecall_engine::cancel::Cancel;
use tokio::runtime::{Builder, Runtime};
use tokio::signal::unix::{SignalKind, signal};

use crate::failure::{Failure, Kind, Outcome};

/// Runs a command that must start fast, on this thread alone. Signals do to it what they do to any
/// process.
///
/// # Errors
/// The command's, and when no runtime can be had.
pub(crate) fn run_short<T>(command: impl Future<Output = Outcome<T>>) -> Outcome<T> {
    run_on(Builder::new_current_thread(), command)
}

/// Runs a command on several threads. Signals do to it what they do to any process.
///
/// # Errors
/// The command's, and when no runtime can be had.
pub(crate) fn run<T>(command: impl Future<Output = Outcome<T>>) -> Outcome<T> {
    run_on(Builder::new_multi_thread(), command)
}

/// Runs a command that must end in order: SIGINT and SIGTERM raise the wish to stop, a second one
/// ends the process at once. A command that fails after a signal has failed because of it.
///
/// # Errors
/// The command's, and when no runtime or no signal handler can be had.
pub(crate) fn run_long<T, F>(command: impl FnOnce(Cancel) -> F) -> Outcome<T>
where
    F: Future<Output = Outcome<T>>,
{
    let signalled = Signalled::default();
    let seen = signalled.clone();
    let ended = run(async move {
        let cancel = Cancel::new();
        listen(cancel.clone(), seen)?;
        command(cancel).await
    });
    ended.map_err(|failure| match signalled.kind() {
        Some(kind) => Failure::new(kind, kind.row().meaning).caused_by(failure),
        None => failure,
    })
}

fn run_on<T>(mut builder: Builder, command: impl Future<Output = Outcome<T>>) -> Outcome<T> {
    let runtime: Runtime = builder.enable_all().build().map_err(|error| {
        Failure::from_error(Kind::Unavailable, &error).during("starting the runtime")
    })?;
    let ended = runtime.block_on(command);
    // Whatever still runs belongs to an operation that has ended; nobody waits for it.
    runtime.shutdown_background();
    ended
}

/// Which signal came first.
#[derive(Debug, Clone, Default)]
struct Signalled(Arc<AtomicU8>);

impl Signalled {
    fn kind(&self) -> Option<Kind> {
        match self.0.load(Ordering::SeqCst) {
            130 => Some(Kind::Interrupted),
            143 => Some(Kind::Terminated),
            _ => None,
        }
    }
}

fn listen(cancel: Cancel, signalled: Signalled) -> Outcome<()> {
    let handler = |kind| {
        signal(kind).map_err(|error| {
            Failure::from_error(Kind::Internal, &error).during("listening for signals")
        })
    };
    let mut interrupt = handler(SignalKind::interrupt())?;
    let mut terminate = handler(SignalKind::terminate())?;
    tokio::spawn(async move {
        loop {
            let kind = tokio::select! {
                _ = interrupt.recv() => Kind::Interrupted,
                _ = terminate.recv() => Kind::Terminated,
            };
            let code = kind.row().code;
            if signalled.0.swap(code, Ordering::SeqCst) != 0 {
                std::process::exit(code.into());
            }
            tracing::warn!("stopping in order; a second signal ends this at once");
            cancel.raise();
        }
    });
    Ok(())
}
