//! `pgrecall key shred`: a domain's keys are deleted, so that nobody ever reads what it holds.

use std::sync::Arc;

use jiff::Timestamp;
use pgrecall_engine::archive::cache::{HostCache, Reading};
use pgrecall_engine::shred::{ShredPlan, Shredder, carry_out, plan};
use pgrecall_repo::keys::Unlock;
use pgrecall_repo::names::Name;
use pgrecall_repo::repository::{Cache, Repository};
use pgrecall_store::{RootPolicy, Versions};
use serde::Serialize;

use crate::args::key::ShredArgs;
use crate::config::settings::Settings;
use crate::context::{host, repository, store};
use crate::failure::{Failure, Kind, Outcome};
use crate::output::prompt;
use crate::output::stdout;

/// What a deletion is worth in such a bucket.
const VERSIONS: &str = "This bucket keeps versions, or has kept them, as far as can be told: whoever \
     has a key of the\nrepository reads all of it by --s3-as-of until the versions of the keys are \
     gone, which a lock delays.\n";

/// What it tells. Its JSON is stable: members are added, never changed.
#[derive(Serialize)]
struct Report {
    domain: String,
    dry_run: bool,
    /// Whether it was begun before, and is only ended now.
    begun: bool,
    lineages: Vec<LineageRow>,
    keys: u64,
}

#[derive(Serialize)]
struct LineageRow {
    cluster: String,
    system_identifier: String,
    backups: u64,
}

pub(super) async fn run(settings: &Settings, unlock: Unlock, args: &ShredArgs) -> Outcome<()> {
    let domain: Name = args.domain.parse().map_err(|error| {
        Failure::from_error(Kind::Usage, &error).during(format!("the domain {}", args.domain))
    })?;
    let repository = open(settings, unlock).await?;
    let host = host::name();
    let by = Shredder { now: Timestamp::now(), host: &host };
    let plan = plan(&repository, &domain, by).await?;
    if !args.output.json {
        stdout::print(&told(&plan))?;
    }
    if !args.dry_run {
        prompt::confirm(
            &format!("Make all of domain {domain} unreadable for good?"),
            args.confirm.yes,
        )?;
        let by = Shredder { now: Timestamp::now(), ..by };
        carry_out(&repository, &domain, &plan, by).await?;
    }
    if args.output.json {
        return stdout::print_json(&report(args, &plan));
    }
    if args.dry_run {
        return Ok(());
    }
    stdout::print(&done(&plan))?;
    match repository.store().keeping().await.map(|keeping| keeping.versions) {
        Ok(Versions::None) => Ok(()),
        Ok(Versions::Kept | Versions::Suspended | Versions::Unknown) | Err(_) => {
            stdout::print(VERSIONS)
        }
    }
}

/// The repository, with this host's copies of keys, which are to go, too.
async fn open(settings: &Settings, unlock: Unlock) -> Outcome<Repository> {
    let mut options = repository::options_with(settings, unlock)?;
    let cache = HostCache::new(settings.repository.cache_dir.clone()).reading(Reading::Anew);
    options.cache = Some(Arc::new(cache) as Arc<dyn Cache>);
    let store = store::open(settings, RootPolicy::MustExist).await?;
    Ok(Repository::open(store, options).await?)
}

fn report(args: &ShredArgs, plan: &ShredPlan) -> Report {
    let lineages = plan.mark.lineages.iter().map(|of| LineageRow {
        cluster: of.cluster.clone(),
        system_identifier: of.lineage.clone(),
        backups: of.backups,
    });
    Report {
        domain: plan.mark.domain.clone(),
        dry_run: args.dry_run,
        begun: plan.begun,
        lineages: lineages.collect(),
        keys: plan.epochs,
    }
}

fn counted(number: u64, noun: &str) -> String {
    if number == 1 { format!("1 {noun}") } else { format!("{number} {noun}s") }
}

fn told(plan: &ShredPlan) -> String {
    let (domain, epochs) = (&plan.mark.domain, counted(plan.epochs, "epoch"));
    if plan.begun {
        let (at, host) = (&plan.mark.at, &plan.mark.host);
        return format!(
            "Domain {domain} was shredded at {at} on {host}; {epochs} of its keys are left.\n"
        );
    }
    let mut text = format!(
        "Domain {domain} has {epochs} of keys. Without them NOBODY EVER READS again, with no key \
         file and no passphrase:\n"
    );
    for of in &plan.mark.lineages {
        let backups = counted(of.backups, "backup");
        text.push_str(&format!(
            "  {backups} and all WAL of cluster {} ({})\n",
            of.cluster, of.lineage
        ));
    }
    if plan.mark.lineages.is_empty() {
        text.push_str("  no backup and no WAL: no cluster is in it\n");
    }
    for (cluster, system) in &plan.in_doubt {
        text.push_str(&format!(
            "  and, it may be, cluster {cluster} ({system}), which does not open now: see pgrecall \
             list\n"
        ));
    }
    text
}

fn done(plan: &ShredPlan) -> String {
    let domain = &plan.mark.domain;
    let mut text = format!(
        "The keys of domain {domain} are deleted. What is left is rubbish, to be deleted by the \
         store's own means:\n  domains/{domain}/ but for domains/{domain}/keys/shredded, which says \
         that the keys are not lost\n"
    );
    for of in &plan.mark.lineages {
        text.push_str(&format!("  clusters/{}/{}/\n", of.cluster, of.lineage));
    }
    text.push_str(
        "Other copies of the keys open it still: those of other hosts and users (in \
         repository.cache_dir, an hour long in use by wal\npush and wal fetch), versions that a \
         bucket keeps, snapshots of the store. Delete those, too.\n",
    );
    text
}
