//! The archiver: `wal push`, one segment after the other, each a command of its own as PostgreSQL
//! runs it.
//!
//! The command itself compresses while the repository is being opened, on a thread that waits for
//! the keys; here the clock stands still as long as any thread is at work, so the repository is
//! opened first.

use std::sync::Arc;

use pgrecall_engine::archive::pack::Compression;
use pgrecall_engine::archive::push::{PushRequest, push_open};
use pgrecall_engine::cluster::ClusterStore;
use pgrecall_repo::codec::Level;
use pgrecall_repo::repository::Repository;

use super::{Context, Ended, chain};

/// Segments that one archiver pushes at most.
const SEGMENTS_MAX: u32 = 6;

/// Archives what is there to archive.
///
/// # Errors
/// When a push fails; the segment is pushed again by the next archiver.
pub async fn run(context: &mut Context) -> Ended {
    let mut pushed = 0;
    while pushed < SEGMENTS_MAX {
        let next = context.database.lock().to_archive();
        let Some(number) = next else { break };
        let path = context.wal.segment(number).map_err(|error| error.to_string())?;
        let request = PushRequest {
            path,
            facts: context.cluster.facts.clone(),
            host: format!("host of {}", context.process),
            compression: Compression { level: Level(1), threads: 1 },
            clock: context.clock.clone(),
        };
        let cluster = open(context).await?;
        let result = push_open(&cluster, &request).await.map_err(|error| chain(&error))?;
        context.tell(&format!("segment {}: {result:?}", number.0));
        context.world.lock().oracle.told_archived(number);
        let mut database = context.database.lock();
        database.next_archived = database.next_archived.max(number.next());
        pushed += 1;
    }
    Ok(format!("{pushed} segments"))
}

async fn open(context: &Context) -> Result<ClusterStore, String> {
    let store = Arc::clone(&context.store) as _;
    let repository =
        Repository::open(store, context.options.clone()).await.map_err(|error| chain(&error))?;
    let at = &context.cluster.at;
    let facts = context.cluster.facts.clone();
    ClusterStore::register(&repository, &at.domain, &at.cluster, facts)
        .await
        .map_err(|error| chain(&error))
}
