//! `pgrecall backup --end-dead`: ends another host's backup whose process is gone for good. A dead
//! backup of this host is ended by the next one; of another host's, only people can know.

use pgrecall_engine::backup::{DeadEnd, end_dead};
use pgrecall_repo::backup::{LiveIntent, live_intents};
use serde_json::json;

use crate::args::BackupArgs;
use crate::config::settings::Settings;
use crate::context::{cluster, host, repository, runtime};
use crate::failure::{Failure, Kind, Outcome};
use crate::output::{prompt, stdout};

pub(crate) fn run(settings: &Settings, args: &BackupArgs, beginning: &str) -> Outcome<()> {
    runtime::run(async {
        let repository = repository::open(settings).await?;
        let cluster = cluster::stored(settings, &repository).await?;
        let live = live_intents(&cluster.sealed, &cluster.at).await?;
        let intent = &meant(&live, beginning)?.intent;
        let question = format!(
            "End the backup {} of cluster {}, begun {} by process {} on {}? If it still runs, it \
             will fail.",
            intent.backup, cluster.at.cluster, intent.began, intent.process, intent.host
        );
        prompt::confirm(&question, args.yes)?;
        let reason =
            format!("a person on {} said at {} that it had died", host::name(), host::now());
        let id = intent.backup;
        let committed = end_dead(&cluster, id, reason).await? == DeadEnd::Committed;
        if args.output.json {
            return stdout::print_json(&json!({ "backup": id, "committed": committed }));
        }
        stdout::print_line(&if committed {
            format!("backup {id} had come to its end before, and stands")
        } else {
            format!("backup {id} is ended; the next one uses what it has stored")
        })
    })
}

fn meant<'a>(live: &'a [LiveIntent], beginning: &str) -> Outcome<&'a LiveIntent> {
    let fits = |live: &&LiveIntent| live.intent.backup.to_string().starts_with(beginning);
    let fitting: Vec<&LiveIntent> = live.iter().filter(fits).collect();
    match fitting.as_slice() {
        [only] if !beginning.is_empty() => Ok(only),
        [] => {
            let message = format!("no backup under way has an id that begins with {beginning}");
            let failure = Failure::new(Kind::NotFound, message);
            let all: Vec<String> = live
                .iter()
                .map(|live| format!("{} on {}", live.intent.backup, live.intent.host))
                .collect();
            Err(match all.as_slice() {
                [] => failure.hint("No backup of this cluster is under way."),
                all => failure.hint(format!("Under way: {}.", all.join(", "))),
            })
        }
        several => Err(Failure::new(
            Kind::Invalid,
            format!("{} backups under way begin with \"{beginning}\"", several.len()),
        )),
    }
}
