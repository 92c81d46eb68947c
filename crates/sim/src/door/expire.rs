//! Wrong requests of an expiry, and of others that write into its log.

use std::sync::Arc;

use bytes::Bytes;
use pgrecall_repo::format::document::Expired;
use pgrecall_repo::format::header::Kind;
use pgrecall_repo::names;
use pgrecall_store::{Key, Listed, MemoryStore};

use super::{Door, list};
use crate::planted::Plant;
use crate::request::{Answer, Request, Sends};
use crate::store::SimStore;
use crate::world::Reply;

impl Door {
    pub(super) async fn expire(&self, store: &SimStore, request: Request) -> Reply {
        let log = names::expired(&self.at.domain);
        match (self.plant, &request) {
            (Plant::IntentsIgnored, Request::List(prefix, ..))
                if *prefix == names::intents(&self.at) =>
            {
                Ok(Answer::Page(Vec::new()))
            }
            (Plant::ExpiredWithoutLog, _) => self.silent_log(store, request).await,
            (Plant::WinnerDeletes, _) => self.log_of_own(store, request).await,
            (Plant::IndependentExpiries | Plant::HoldsLookedAtOnce, Request::Put(key, body, _))
                if log.number(key).is_some() =>
            {
                match store.plain(request.clone()).await? {
                    Answer::Exists => self.add_victims(store, key, body).await,
                    answer => Ok(answer),
                }
            }
            _ => store.plain(request).await,
        }
    }

    pub(super) async fn hold(&self, store: &SimStore, request: Request) -> Reply {
        match self.plant {
            Plant::HoldNotReadAgain => self.log_of_own(store, request).await,
            _ => store.plain(request).await,
        }
    }

    /// An entry of the log is put nowhere, and read all the same.
    pub(super) async fn silent_log(&self, store: &SimStore, request: Request) -> Reply {
        match &request {
            Request::Put(key, body, _) if names::expired(&self.at.domain).number(key).is_some() => {
                self.state().objects.insert(key.clone(), body.clone());
                Ok(Answer::Created)
            }
            _ => self.own_entries(store, request).await,
        }
    }

    /// The entry that one has put is the highest to him, whatever others have put.
    async fn log_of_own(&self, store: &SimStore, request: Request) -> Reply {
        match &request {
            Request::Put(key, body, _) if names::expired(&self.at.domain).number(key).is_some() => {
                let answer = store.plain(request.clone()).await?;
                if matches!(answer, Answer::Created) {
                    self.state().objects.insert(key.clone(), body.clone());
                }
                Ok(answer)
            }
            _ => self.own_entries(store, request).await,
        }
    }

    async fn own_entries(&self, store: &SimStore, request: Request) -> Reply {
        match &request {
            Request::List(prefix, ..)
                if prefix == names::expired(&self.at.domain).prefix()
                    && !self.state().objects.is_empty() =>
            {
                let state = self.state();
                let own = state.objects.iter();
                let own =
                    own.map(|(key, body)| Listed { key: key.clone(), size: body.len() as u64 });
                Ok(Answer::Page(own.collect()))
            }
            Request::Get(key) => {
                let own = self.state().objects.get(key).cloned();
                match own {
                    Some(bytes) => Ok(Answer::Object(bytes)),
                    None => store.plain(request).await,
                }
            }
            _ => store.plain(request).await,
        }
    }

    /// Writes the victims of an entry that was too late into the next one.
    async fn add_victims(&self, store: &SimStore, key: &Key, body: &Bytes) -> Reply {
        let log = names::expired(&self.at.domain);
        let sealed = self.sealed(Arc::new(MemoryStore::new()));
        let open =
            |key: &Key, bytes: &Bytes| sealed.open::<Expired>(Kind::Expired, key, bytes).ok();
        loop {
            let listed = list(store, log.prefix()).await?;
            let Some(newest) = listed.last() else { return Ok(Answer::Exists) };
            let read = store.plain(Request::Get(newest.key.clone())).await;
            let Ok(Answer::Object(bytes)) = read else { continue };
            let (Some(mut entry), Some(ours), Some(number)) =
                (open(&newest.key, &bytes), open(key, body), log.number(&newest.key))
            else {
                return Ok(Answer::Exists);
            };
            let known = entry.backups.clone();
            let has_expired = known.iter().any(|id| !ours.backups.contains(id));
            if self.plant == Plant::HoldsLookedAtOnce && has_expired {
                // That it sees: only holds are not looked at again.
                return Ok(Answer::Exists);
            }
            entry.backups.extend(ours.backups.into_iter().filter(|id| !known.contains(id)));
            for wal in ours.wal {
                if !entry.wal.contains(&wal) {
                    entry.wal.push(wal);
                }
            }
            let next = log.entry(number + 1);
            let sealed = self.sealed_document(Kind::Expired, &next, &entry);
            let put = Request::Put(next, sealed, Sends::Often);
            if let Answer::Created = store.plain(put).await? {
                return Ok(Answer::Created);
            }
        }
    }
}
