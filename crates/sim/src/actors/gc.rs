//! `pgrecall gc` as the command does it: a plan, and what it has chosen carried out.

use std::sync::Arc;
use std::time::Duration;

use pgrecall_engine::EngineError;
use pgrecall_engine::backup::Host;
use pgrecall_engine::cancel::Cancel;
use pgrecall_engine::collection::carry_out::{Collected, carry_out};
use pgrecall_engine::collection::dead::DeadRule;
use pgrecall_engine::collection::plan::{CollectRequest, plan};
use pgrecall_engine::collection::policy::Policy;
use pgrecall_engine::progress::{Event, Progress, Sink};

use super::{Context, Ended, chain};
use crate::door::{Door, Phase};

/// Collects once, by some policy. Backups are taken for dead some time after they were first seen,
/// by a clock that may have been hours off then: living ones, too. Now and then that is at once.
///
/// # Errors
/// When it could not go on.
pub async fn run(context: &mut Context) -> Ended {
    let percent = [0, 25, 60, 95][context.chance.place(4)];
    let policy = Policy { rewrite_below_percent: percent, rewrite_bytes_max: 1 << 30 };
    let minutes = match context.chance.happens(context.habits.ends_living) {
        true => 0,
        false => [1, 60, 300][context.chance.place(3)],
    };
    match collect(context, policy, Duration::from_secs(minutes * 60)).await {
        Ok(done) => Ok(format!("{done:?}")),
        Err(error) => Err(chain(&error)),
    }
}

/// Collects once. What was seen of backups under way is kept for the next one, as hosts do.
///
/// # Errors
/// When it could not go on.
pub async fn collect(
    context: &Context,
    policy: Policy,
    dead_after: Duration,
) -> Result<Collected, EngineError> {
    let (sealed, domain) = (&context.cluster.sealed, context.cluster.domain());
    let mut request = CollectRequest {
        policy,
        dead: DeadRule {
            // No backup is of this host: whose process lives is nothing that a simulation can ask.
            host: Host { name: "collector".into(), process: 1 },
            after: Some(dead_after),
            clock: context.clock.clone(),
        },
        sightings: context.sightings.read(),
        progress: context
            .door
            .clone()
            .map_or_else(Progress::silent, |door| Progress::new(Phases(door))),
        cancel: Cancel::new(),
    };
    let planned = plan(sealed, domain, &mut request).await;
    context.sightings.write(request.sightings.clone());
    carry_out(sealed, planned?, &request).await
}

/// Tells a door which part of the collection has begun.
struct Phases(Arc<Door>);

impl Sink for Phases {
    fn event(&self, event: Event) {
        let Event::Phase { name, .. } = event else { return };
        self.0.enter(match name {
            "sweeping earlier rounds" | "sweeping" => Phase::Sweep,
            "merging the index" => Phase::Merge,
            _ => Phase::Other,
        });
    }
}
