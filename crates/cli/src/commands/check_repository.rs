//! The part of `pgrecall check` that is about the repository: it can be opened, has what this host
//! has seen in it, keeps what stores promise, and knows the cluster.

use pgrecall_engine::cluster::ClusterStore;
use pgrecall_engine::seen::{BRING_BACK, GO_ON};
use pgrecall_repo::format::document::LivingKey;
use pgrecall_repo::repository::Repository;
use pgrecall_store::{DefaultLock, Deletion, Versions};

use super::check_report::Report;
use crate::config::settings::{Encryption, Settings};
use crate::context::{cluster, repository, seen, store};
use crate::failure::Kind;

pub(super) async fn check_repository(
    settings: &Settings,
    report: &mut Report,
) -> Option<ClusterStore> {
    let opened = match repository::open(settings).await {
        Ok(opened) => opened,
        Err(failure) => {
            report.failure("repository", &failure);
            return None;
        }
    };
    let url = settings.repository_url().unwrap_or_default();
    report.pass("repository", format!("{url} ({})", opened.root().id));
    if settings.repository.id.is_none() {
        report.warn(
            "repository",
            "the configuration does not pin the repository's id",
            "Put id and key_fingerprint into [[repository]]; pgrecall init prints them.",
        );
    }
    check_keys(settings, &opened, report).await;
    check_keeping(&opened, report).await;
    // Only where the repository stands: an empty mount point must stay empty.
    check_store(settings, report).await;
    match cluster::registered(settings, &opened).await {
        Ok(cluster) => {
            let system = &cluster.at.lineage;
            report.pass("cluster", format!("{} (system identifier {system})", cluster.at.cluster));
            if let Some(public) = cluster.sealed.keys().sealed_for() {
                let fingerprint = public.fingerprint();
                report.pass("restore key", format!("new data is sealed for {fingerprint}"));
            }
            check_seen(settings, &opened, &cluster, report).await;
            Some(cluster)
        }
        Err(failure) => {
            report.failure("cluster", &failure);
            None
        }
    }
}

/// Whether the repository has what this host has seen in it.
async fn check_seen(
    settings: &Settings,
    repository: &Repository,
    cluster: &ClusterStore,
    report: &mut Report,
) {
    match seen::missing(settings, repository, cluster).await {
        Ok(missing) => {
            for sentence in missing {
                let mend = format!("{BRING_BACK} {GO_ON}");
                report.fail("repository", Kind::Corrupt, sentence, &mend);
            }
        }
        Err(failure) => report.failure("repository", &failure),
    }
}

async fn check_keys(settings: &Settings, repository: &Repository, report: &mut Report) {
    if settings.repository.encryption == Encryption::Clear {
        report.warn(
            "keys",
            "the repository is not encrypted: whoever can read the store can read the database",
            "A new repository is encrypted unless told otherwise; this one cannot be changed.",
        );
        return;
    }
    let living = match repository.key_log().await {
        Ok((_, log)) => log.living,
        Err(error) => {
            report.failure("keys", &error.into());
            return;
        }
    };
    let passphrases = living.iter().filter(|key| key.method == "passphrase").count();
    let own = repository.opened_by();
    // A KMS key lies elsewhere also where it is this host's own.
    let is_elsewhere = |key: &&LivingKey| Some(key.id) != own || key.kms_key.is_some();
    let elsewhere = living.iter().filter(is_elsewhere).count();
    if elsewhere == 0 {
        report.warn(
            "keys",
            "the only key that opens the repository lies on this host: when the host burns, so do \
             all backups",
            "Copy the key file to a safe place and add a second key: pgrecall key add \
             --new-passphrase.",
        );
    } else if let [LivingKey { kms_key: Some(key), .. }] = living.as_slice() {
        report.warn(
            "keys",
            format!(
                "the only key that opens the repository is {key} of KMS: once it is deleted, or its \
                 account is lost, nobody can restore"
            ),
            "Add a second key, and keep it in a safe place: pgrecall key add --new-key-file, or \
             --new-passphrase.",
        );
    } else if passphrases == 0 {
        report.warn(
            "keys",
            format!("{} keys, none of them a passphrase that people know", living.len()),
            "Where all hosts with a key may be lost together, add one: pgrecall key add \
             --new-passphrase.",
        );
    } else {
        report.pass("keys", format!("{} keys, {passphrases} of them a passphrase", living.len()));
    }
}

/// What a bucket keeps from whoever gets hold of a key to it.
async fn check_keeping(repository: &Repository, report: &mut Report) {
    if !repository.store().url().starts_with("s3:") {
        return;
    }
    let keeping = match repository.store().keeping().await {
        Ok(keeping) => keeping,
        Err(error) => {
            let found = format!("what it keeps of what is deleted is not known: {error}");
            report.warn("bucket", found, "Ask the server's maker whether it keeps versions.");
            return;
        }
    };
    let versions = match keeping.versions {
        Versions::Kept => "versions are kept",
        Versions::None => "no versions are kept of what is deleted",
        Versions::Suspended => "no versions are kept any more of what is deleted",
        Versions::Unknown => "whether versions are kept may not be asked",
    };
    let lock = match keeping.lock {
        DefaultLock::Days { mode, days } => format!("locked for {days} days ({mode})"),
        DefaultLock::None => "locked for no time".to_owned(),
        DefaultLock::Unknown => "locked for how long may not be asked".to_owned(),
    };
    let found = format!("{versions}; what is put is {lock}");
    match (keeping.versions, keeping.lock) {
        (Versions::None | Versions::Suspended, _) | (_, DefaultLock::None) => report.warn(
            "bucket",
            found,
            "Turn on object lock with a default retention, which brings versions: \
             docs/s3-policy.md tells what a stolen key can do without.",
        ),
        _ => report.pass("bucket", found),
    }
}

/// Tries what the store promises, over connections of its own.
async fn check_store(settings: &Settings, report: &mut Report) {
    match store::probe(settings).await {
        Ok(found) if found.is_sound() => {
            let deletion = match found.deletion {
                Deletion::Allowed => "",
                Deletion::Denied => {
                    "; these credentials may not delete, which guards what is stored"
                }
            };
            let (racers, rounds) = (found.racers, found.rounds);
            report.pass(
                "store",
                format!("of {racers} racing puts one won, in each of {rounds} rounds{deletion}"),
            );
        }
        Ok(found) => {
            let seen: Vec<String> = found.findings.iter().map(ToString::to_string).collect();
            report.fail(
                "store",
                Kind::Unsupported,
                seen.join("; "),
                "Use another store, or a newer version of its server: two hosts, or two tries of \
                 one, could overwrite each other's WAL here.",
            );
        }
        Err(failure) => report.failure("store", &failure),
    }
}
