//! `pgrecall key shred`: a domain's keys are deleted, so that nobody ever reads what it holds.

use jiff::Timestamp;
use pgrecall_engine::archive::cache::HostCache;
use pgrecall_engine::shred::{ShredPlan, carry_out, plan};
use pgrecall_repo::names::{self, Name};
use pgrecall_repo::repository::{Cache as _, Repository};
use serde::Serialize;

use crate::args::key::ShredArgs;
use crate::config::settings::Settings;
use crate::failure::{Failure, Kind, Outcome};
use crate::output::prompt;
use crate::output::stdout;

/// What it tells. Its JSON is stable: members are added, never changed.
#[derive(Serialize)]
struct Report {
    domain: String,
    dry_run: bool,
    lineages: Vec<LineageRow>,
    keys: u64,
}

#[derive(Serialize)]
struct LineageRow {
    cluster: String,
    system_identifier: String,
    backups: u64,
}

pub(super) async fn run(
    settings: &Settings,
    repository: &Repository,
    args: &ShredArgs,
) -> Outcome<()> {
    let domain: Name = args.domain.parse().map_err(|error| {
        Failure::from_error(Kind::Usage, &error).during(format!("the domain {}", args.domain))
    })?;
    let plan = plan(repository, &domain, Timestamp::now()).await?;
    if !args.output.json {
        stdout::print(&told(&plan))?;
    }
    if args.dry_run {
        return finish(args, &plan);
    }
    prompt::confirm(
        &format!("Make all of domain {domain} unreadable for good?"),
        args.confirm.yes,
    )?;
    carry_out(repository, &plan).await?;
    let cache = HostCache::new(settings.repository.cache_dir.clone());
    for number in 0..u64::try_from(plan.epochs).unwrap_or_default() {
        let entry = names::domain_keys(&domain).entry(number);
        cache.forget(repository.root().id, entry.as_str());
    }
    finish(args, &plan)?;
    if args.output.json {
        return Ok(());
    }
    stdout::print(&format!(
        "The keys of domain {domain} are deleted. What is left below domains/{domain}/ and of its \
         clusters below clusters/ is rubbish: delete it by the store's own means.\nTheir copies in \
         the caches of other hosts and users (repository.cache_dir), in versions that a bucket keeps \
         and in snapshots of the store are not: delete those too.\n"
    ))
}

fn finish(args: &ShredArgs, plan: &ShredPlan) -> Outcome<()> {
    if !args.output.json {
        return Ok(());
    }
    let count = |number: usize| u64::try_from(number).unwrap_or(u64::MAX);
    let lineages = plan.lineages.iter().map(|(at, backups)| LineageRow {
        cluster: at.cluster.to_string(),
        system_identifier: at.lineage.clone(),
        backups: count(*backups),
    });
    stdout::print_json(&Report {
        domain: plan.domain.to_string(),
        dry_run: args.dry_run,
        lineages: lineages.collect(),
        keys: count(plan.epochs),
    })
}

fn told(plan: &ShredPlan) -> String {
    let mut text = format!(
        "Domain {} has {} epochs of keys. Without them NOBODY EVER READS again, with no key file and \
         no passphrase:\n",
        plan.domain, plan.epochs
    );
    for (at, backups) in &plan.lineages {
        text.push_str(&format!(
            "  {backups} backups and all WAL of cluster {} ({})\n",
            at.cluster, at.lineage
        ));
    }
    text
}
