//! An expiry: the product's plan, and its carrying out.

use jiff::SignedDuration;
use jiff::tz::TimeZone;
use pgrecall_engine::cancel::Cancel;
use pgrecall_engine::progress::Progress;
use pgrecall_engine::retention::expire::carry_out;
use pgrecall_engine::retention::plan::{ExpireRequest, plan};
use pgrecall_engine::retention::rules::KeepRules;

use super::{Context, Ended, chain};

/// Expires what some rules do not keep.
///
/// # Errors
/// When nothing was done, or not all of it.
pub async fn run(context: &mut Context) -> Ended {
    let chance = &mut context.chance;
    let keeps_one = context.habits.keeps_one;
    let rules = match chance.happens(750) {
        _ if keeps_one > 0 && chance.happens(keeps_one) => {
            KeepRules { last: 1, ..KeepRules::default() }
        }
        true => KeepRules { last: 1 + chance.place(2) as u32, ..KeepRules::default() },
        false => {
            let hours = 1 + chance.below(6) as i64;
            KeepRules { window: Some(SignedDuration::from_hours(hours)), ..KeepRules::default() }
        }
    };
    let request = ExpireRequest {
        rules,
        zone: TimeZone::UTC,
        clock: context.clock.clone(),
        cancel: Cancel::new(),
    };
    context.world.lock().oracle.may_expire(context.process);
    let plan = plan(&context.cluster, &request).await.map_err(|error| chain(&error))?;
    let ids: Vec<String> = plan.expires.iter().map(|row| row.id.to_string()).collect();
    context.tell(&format!("expires {ids:?} and {} WAL objects", plan.wal_objects));
    let done = carry_out(&context.cluster, &plan, &Progress::silent(), &Cancel::new())
        .await
        .map_err(|error| chain(&error))?;
    Ok(format!("{done:?}"))
}
