//! Step E, as far as chunks are concerned: a growing log of backups, then their manifests. The log
//! itself is a model of its own.

use super::store::{Ending, Request};
use super::{Chunks, Out, Rule, State};

/// Where the expiry is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum ExpiryStep {
    Idle,
    PutLog(u8),
    DeleteManifest(u8),
}

/// An expiry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Expiry {
    step: ExpiryStep,
    left: u8,
}

impl Expiry {
    pub(super) const fn with(left: u8) -> Self {
        Self { step: ExpiryStep::Idle, left }
    }
}

impl Chunks {
    pub(super) fn expiry(&self, state: &State, out: &mut Out<'_>) {
        match state.expiry.step {
            ExpiryStep::Idle => self.decide(state, out),
            ExpiryStep::PutLog(b) => {
                let answered = |s: &mut State, _| s.expiry.step = ExpiryStep::DeleteManifest(b);
                out.send(state, Request::PutLog(b), "expire", answered, |_| {});
            }
            ExpiryStep::DeleteManifest(b) => {
                let answered = |s: &mut State, _| s.expiry.step = ExpiryStep::Idle;
                out.send(state, Request::DeleteManifest(b), "expire", answered, |_| {});
            }
        }
        if state.expiry.step != ExpiryStep::Idle && state.budget.deaths > 0 {
            let mut next = *state;
            next.budget.deaths -= 1;
            next.expiry.step = ExpiryStep::Idle;
            out.step(next, || "expire dies".to_owned());
        }
    }

    fn decide(&self, state: &State, out: &mut Out<'_>) {
        if state.expiry.left == 0 {
            return;
        }
        for (b, ending) in (0..).zip(&state.store.manifests) {
            if *ending != Ending::Manifest || state.store.log.has(b) {
                continue;
            }
            let mut next = *state;
            next.expiry.left -= 1;
            next.expiry.step = if self.holds(Rule::LogFirst) {
                ExpiryStep::PutLog(b)
            } else {
                ExpiryStep::DeleteManifest(b)
            };
            next.expired.add(b);
            out.step(next, || format!("expire: decides on B{b}"));
        }
    }
}
