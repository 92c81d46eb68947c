//! A backup's wrong requests.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use pgrecall_repo::index::{self, IndexObject};
use pgrecall_repo::names;
use pgrecall_store::{Key, Listed, MemoryStore, Store as _};

use super::{Door, list};
use crate::planted::Plant;
use crate::request::{Answer, Request, Sends};
use crate::store::SimStore;
use crate::world::Reply;

impl Door {
    pub(super) async fn backup(&self, store: &SimStore, request: Request) -> Reply {
        let domain = &self.at.domain;
        match (self.plant, &request) {
            (Plant::IntentAfterReading, Request::Put(key, ..)) => {
                if names::intent_of(domain, key).is_some() {
                    self.state().held = Some(request);
                    return Ok(Answer::Created);
                }
                let held = self.state().held.take();
                if let Some(held) = held {
                    store.plain(held).await?;
                }
                store.plain(request).await
            }
            (Plant::UnknownIntent, Request::Put(key, ..))
                if names::intent_of(domain, key).is_some() =>
            {
                // One request, and whatever comes of it.
                Ok(store.send(request).await.unwrap_or(Answer::Created))
            }
            (Plant::ExistsIsCommitted, Request::Put(key, ..))
                if names::manifest_of(domain, key).is_some() =>
            {
                let answer = store.plain(request).await?;
                Ok(if matches!(answer, Answer::Exists) { Answer::Created } else { answer })
            }
            (Plant::LogNotLookedAt, Request::Put(key, ..)) => {
                let manifest = names::manifest_of(domain, key).is_some();
                self.state().manifest_sent |= manifest;
                store.plain(request).await
            }
            (Plant::LogNotLookedAt, Request::List(prefix, ..))
                if self.state().manifest_sent && *prefix == *names::expired(domain).prefix() =>
            {
                Ok(Answer::Page(Vec::new()))
            }
            (Plant::PackSentAgain, Request::Put(_, _, Sends::Once)) => store.ask(request).await,
            (Plant::IndexBeforeMarkers, _) => self.index_first(store, request).await,
            _ => store.plain(request).await,
        }
    }

    /// The index is read when the product asks for markers, and packs are what the index says.
    async fn index_first(&self, store: &SimStore, request: Request) -> Reply {
        let domain = self.at.domain.clone();
        let indexes = names::indexes(&domain);
        match &request {
            Request::List(prefix, None, _) if *prefix == names::retired(&domain) => {
                let listed = list(store, &indexes).await?;
                for object in &listed {
                    let read = store.plain(Request::Get(object.key.clone())).await;
                    if let Ok(Answer::Object(bytes)) = read {
                        self.state().objects.insert(object.key.clone(), bytes);
                    }
                }
                self.state().listings.insert(indexes.to_string(), listed);
                store.plain(request).await
            }
            Request::List(prefix, after, count) if *prefix == indexes => {
                match self.serve(prefix, after.as_ref(), *count) {
                    Some(page) => Ok(Answer::Page(page)),
                    None => store.plain(request).await,
                }
            }
            Request::List(prefix, after, count) if *prefix == names::packs(&domain) => {
                let mut named = self.named_packs().await;
                named.extend(self.state().own_packs.clone());
                named.sort();
                let is_after = |listed: &Listed| after.as_ref().is_none_or(|a| listed.key > *a);
                named.retain(is_after);
                named.truncate(*count);
                Ok(Answer::Page(named))
            }
            Request::Put(key, body, Sends::Once) => {
                let listed = Listed { key: key.clone(), size: body.len() as u64 };
                let answer = store.plain(request).await?;
                self.state().own_packs.push(listed);
                Ok(answer)
            }
            Request::Get(key) | Request::GetRange(key, _) => {
                let cached = self.state().objects.get(key).cloned();
                let buried = store.world().lock().buried(key);
                match (cached, &request) {
                    (Some(bytes), Request::Get(_)) => Ok(Answer::Object(bytes)),
                    _ => match buried {
                        // Nobody verifies: a sample reads well.
                        Some(bytes) => buried_part(&bytes, &request),
                        None => store.plain(request).await,
                    },
                }
            }
            _ => store.plain(request).await,
        }
    }

    /// The packs that the index objects read so far name.
    async fn named_packs(&self) -> Vec<Listed> {
        let objects = self.state().objects.clone();
        let mut packs: BTreeMap<Key, Listed> = BTreeMap::new();
        for (key, bytes) in objects {
            let Some(object) = self.index_object(&key, bytes).await else { continue };
            for pack in &object.packs {
                let key = names::pack(&self.at.domain, pack.kind, pack.id);
                packs.insert(key.clone(), Listed { key, size: pack.size });
            }
        }
        packs.into_values().collect()
    }

    async fn index_object(&self, key: &Key, bytes: Bytes) -> Option<IndexObject> {
        let memory = Arc::new(MemoryStore::new());
        let _ = memory.put_once(key, bytes).await;
        index::read_object(&self.sealed(memory), key).await.ok()
    }
}

fn buried_part(bytes: &Bytes, request: &Request) -> Reply {
    let Request::GetRange(_, range) = request else {
        return Ok(Answer::Object(bytes.clone()));
    };
    let object_size = bytes.len() as u64;
    let (offset, len) = range.within(object_size).unwrap_or((0, 0));
    let place = |number| usize::try_from(number).unwrap_or(usize::MAX).min(bytes.len());
    let bytes = bytes.slice(place(offset)..place(offset + len));
    Ok(Answer::Part(pgrecall_store::RangeRead { bytes, object_size }))
}
