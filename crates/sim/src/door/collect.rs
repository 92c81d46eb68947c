//! A collection's wrong requests.

use std::sync::Arc;

use bytes::Bytes;
use pgrecall_repo::format::document::{Retired, RetiredIntents};
use pgrecall_repo::format::header::Kind;
use pgrecall_repo::id::PackId;
use pgrecall_repo::index;
use pgrecall_repo::names::{self, RoundPart};
use pgrecall_store::{ErrorKind, Key, Listed, MemoryStore, Store as _};

use super::Door;
use crate::planted::Plant;
use crate::request::{Answer, Request};
use crate::store::SimStore;
use crate::world::Reply;

impl Door {
    pub(super) async fn collect(&self, store: &SimStore, request: Request) -> Reply {
        self.note(&request);
        match self.plant {
            Plant::UnknownMarker | Plant::IntentsBeforeMarker => self.marker(store, request).await,
            Plant::IntentBeforeTombstone
            | Plant::NoListNoIntents
            | Plant::NoWaiting
            | Plant::LivenessFirst => self.intents(store, request).await,
            Plant::OwnVerdict | Plant::MarkerNotLookedAt | Plant::MarkerBeforePacks => {
                self.verdict(store, request).await
            }
            Plant::CopyInRetiredPack | Plant::PacksBeforeMarkers => {
                self.copies(store, request).await
            }
            Plant::CopyNotIndexed => self.made_up_index(store, request).await,
            Plant::MergeListsFirst | Plant::MergeDropsRetired => self.merge(store, request).await,
            Plant::PackSentAgain => match &request {
                Request::Put(key, ..) if names::pack_of(&self.at.domain, key).is_some() => {
                    store.ask(request).await
                }
                _ => store.plain(request).await,
            },
            _ => store.plain(request).await,
        }
    }

    fn is_part(&self, key: &Key, wanted: RoundPart) -> bool {
        names::round_of(&self.at.domain, key).is_some_and(|(_, part)| part == wanted)
    }

    async fn marker(&self, store: &SimStore, request: Request) -> Reply {
        let intents = names::all_intents(&self.at.domain);
        match (self.plant, &request) {
            (Plant::UnknownMarker, Request::Put(key, ..))
                if self.is_part(key, RoundPart::Marker) =>
            {
                Ok(store.plain(request).await.unwrap_or(Answer::Created))
            }
            (Plant::IntentsBeforeMarker, Request::Put(key, ..))
                if self.is_part(key, RoundPart::Marker) =>
            {
                self.read_early(store, &intents).await?;
                store.plain(request).await
            }
            (Plant::IntentsBeforeMarker, Request::List(prefix, after, count))
                if *prefix == intents =>
            {
                self.late_or(store, (prefix, after.as_ref(), *count)).await
            }
            _ => store.plain(request).await,
        }
    }

    async fn intents(&self, store: &SimStore, request: Request) -> Reply {
        let domain = &self.at.domain;
        let manifests = names::manifests(domain);
        match (self.plant, &request) {
            (Plant::IntentBeforeTombstone, Request::Put(key, ..)) => {
                if let Some((at, id)) = names::manifest_of(domain, key) {
                    store.plain(Request::Delete(names::intent(&at, id))).await?;
                }
                store.plain(request).await
            }
            (Plant::NoListNoIntents, Request::Get(key))
                if self.is_part(key, RoundPart::Intents) =>
            {
                match store.plain(request.clone()).await {
                    Err(error) if error.kind() == ErrorKind::NotFound => {
                        let nobody = RetiredIntents { intents: Vec::new() };
                        Ok(Answer::Object(self.sealed_document(Kind::RetiredIntents, key, &nobody)))
                    }
                    answer => answer,
                }
            }
            (Plant::LivenessFirst, Request::Get(key)) if self.is_part(key, RoundPart::Intents) => {
                if !self.has_early(&manifests) {
                    self.read_early(store, &manifests).await?;
                }
                store.plain(request).await
            }
            (Plant::LivenessFirst, Request::List(prefix, after, count)) if *prefix == manifests => {
                self.late_or(store, (prefix, after.as_ref(), *count)).await
            }
            (Plant::NoWaiting, Request::List(prefix, ..))
                if *prefix == names::all_intents(domain) && self.state().has_list =>
            {
                Ok(Answer::Page(Vec::new()))
            }
            _ => store.plain(request).await,
        }
    }

    async fn verdict(&self, store: &SimStore, request: Request) -> Reply {
        let domain = &self.at.domain;
        match (self.plant, &request) {
            (Plant::OwnVerdict, Request::Put(key, body, _))
                if self.is_part(key, RoundPart::Verdict) =>
            {
                self.state().objects.insert(key.clone(), body.clone());
                Ok(Answer::Created)
            }
            (Plant::OwnVerdict, Request::Get(key)) if self.is_part(key, RoundPart::Verdict) => {
                let own = self.state().objects.get(key).cloned();
                let missing = || request.error(ErrorKind::NotFound, "no such object");
                own.map(Answer::Object).ok_or_else(missing)
            }
            (Plant::MarkerNotLookedAt, Request::Get(key))
                if self.is_part(key, RoundPart::Marker) =>
            {
                let read = self.state().objects.get(key).cloned();
                if let Some(bytes) = read.filter(|_| self.state().sweeping) {
                    return Ok(Answer::Object(bytes));
                }
                let answer = store.plain(request.clone()).await?;
                if let Answer::Object(bytes) = &answer {
                    self.state().objects.insert(key.clone(), bytes.clone());
                }
                Ok(answer)
            }
            (Plant::MarkerBeforePacks, Request::Delete(key))
                if names::pack_of(domain, key).is_some() =>
            {
                let round = self.state().round.take();
                if let Some(round) = round {
                    let marker = names::round(domain, round, RoundPart::Marker);
                    store.plain(Request::Delete(marker)).await?;
                }
                store.plain(request).await
            }
            _ => store.plain(request).await,
        }
    }

    /// Which copies count.
    async fn copies(&self, store: &SimStore, request: Request) -> Reply {
        let domain = &self.at.domain;
        let (packs, retired) = (names::packs(domain), names::retired(domain));
        let deciding = self.state().deciding;
        match (self.plant, &request) {
            (Plant::CopyInRetiredPack, Request::List(prefix, ..))
                if *prefix == retired && deciding =>
            {
                let own = self.state().round;
                let is_own =
                    |listed: &Listed| names::round_of(domain, &listed.key).map(|(id, _)| id) == own;
                Ok(match store.plain(request).await? {
                    Answer::Page(page) => Answer::Page(page.into_iter().filter(is_own).collect()),
                    answer => answer,
                })
            }
            (Plant::PacksBeforeMarkers, Request::List(prefix, ..))
                if *prefix == names::manifests(domain) =>
            {
                self.state().listings.remove(&packs.to_string());
                store.plain(request).await
            }
            (Plant::PacksBeforeMarkers, Request::List(prefix, None, _))
                if *prefix == retired && deciding =>
            {
                self.read_early(store, &packs).await?;
                store.plain(request).await
            }
            (Plant::PacksBeforeMarkers, Request::List(prefix, after, count))
                if *prefix == packs && deciding =>
            {
                // The product lists them twice; to this verdict both are as old.
                let early = self.state().listings.get(&packs.to_string()).cloned();
                let answer = self.late_or(store, (prefix, after.as_ref(), *count)).await;
                self.state().listings.extend(early.map(|listed| (packs.to_string(), listed)));
                answer
            }
            _ => store.plain(request).await,
        }
    }

    /// An index object more than there are names what none names.
    async fn made_up_index(&self, store: &SimStore, request: Request) -> Reply {
        let deciding = self.state().deciding;
        match &request {
            Request::List(prefix, None, _)
                if *prefix == names::indexes(&self.at.domain) && deciding =>
            {
                self.index_of_unnamed(store).await;
                Ok(match store.plain(request).await? {
                    Answer::Page(mut page) => {
                        let made_up: Vec<Key> = self.state().objects.keys().cloned().collect();
                        page.splice(0..0, made_up.into_iter().map(|key| Listed { key, size: 0 }));
                        Answer::Page(page)
                    }
                    answer => answer,
                })
            }
            Request::Get(key) => {
                let made_up = self.state().objects.get(key).cloned();
                match made_up {
                    Some(bytes) => Ok(Answer::Object(bytes)),
                    None => store.plain(request).await,
                }
            }
            _ => store.plain(request).await,
        }
    }

    async fn merge(&self, store: &SimStore, request: Request) -> Reply {
        let domain = &self.at.domain;
        let (packs, indexes) = (names::packs(domain), names::indexes(domain));
        let merging = self.state().merging;
        match (self.plant, &request) {
            (Plant::MergeListsFirst, Request::List(prefix, None, _))
                if *prefix == indexes && merging =>
            {
                self.read_early(store, &packs).await?;
                store.plain(request).await
            }
            // `gc` has listed the index when it made its plan, and reads what that has named.
            (Plant::MergeListsFirst, Request::Get(key))
                if indexes.contains(key) && merging && !self.has_early(&packs) =>
            {
                self.read_early(store, &packs).await?;
                store.plain(request).await
            }
            (Plant::MergeListsFirst, Request::List(prefix, after, count)) if *prefix == packs => {
                self.late_or(store, (prefix, after.as_ref(), *count)).await
            }
            (Plant::MergeDropsRetired, Request::List(prefix, ..))
                if *prefix == packs && merging =>
            {
                let marked = self.marked(store);
                // A page that is short ends the listing: nothing is left out of its length.
                let seen = |listed: Listed| match names::pack_of(domain, &listed.key) {
                    Some((_, id)) if marked.contains(&id) => unnamed(listed),
                    _ => listed,
                };
                Ok(match store.plain(request).await? {
                    Answer::Page(page) => Answer::Page(page.into_iter().map(seen).collect()),
                    answer => answer,
                })
            }
            _ => store.plain(request).await,
        }
    }

    /// Follows what a collection is doing.
    fn note(&self, request: &Request) {
        let domain = &self.at.domain;
        let mut state = self.state();
        let sweeping = state.sweeping;
        match request {
            Request::List(prefix, ..) if *prefix == names::manifests(domain) => {
                state.deciding = sweeping;
            }
            Request::Put(key, ..) => match names::round_of(domain, key) {
                Some((_, RoundPart::Verdict)) => state.deciding = false,
                Some(_) => state.has_list = false,
                None => {}
            },
            Request::Get(key) => match names::round_of(domain, key) {
                // Markers are read while the verdict is made, too.
                Some((id, RoundPart::Marker)) if sweeping && !state.deciding => {
                    state.round = Some(id);
                }
                Some((_, RoundPart::Intents)) => state.has_list = true,
                _ => {}
            },
            _ => {}
        }
    }

    /// The packs in markers.
    fn marked(&self, store: &SimStore) -> Vec<PackId> {
        let sealed = self.sealed(Arc::new(MemoryStore::new()));
        let world = store.world().lock();
        let domain = &self.at.domain;
        let markers = world.objects().iter().filter(|(key, _)| {
            names::round_of(domain, key).is_some_and(|(_, part)| part == RoundPart::Marker)
        });
        let open = |(key, bytes): (&Key, &Bytes)| {
            sealed.open::<Retired>(Kind::Retired, key, bytes).ok().map(|marker| marker.packs)
        };
        markers.filter_map(open).flatten().collect()
    }

    /// Makes an index object up that names every pack that none names.
    async fn index_of_unnamed(&self, store: &SimStore) {
        let domain = self.at.domain.clone();
        let memory = Arc::new(MemoryStore::new());
        let sealed = self.sealed(memory.clone());
        let unnamed: Vec<(Key, Bytes)> = {
            let world = store.world().lock();
            let is_unnamed = |key: &&Key| {
                names::pack_of(&domain, key).is_some_and(|(_, id)| !world.oracle.names(id))
            };
            let keys = world.objects().keys().filter(is_unnamed);
            keys.filter_map(|key| Some((key.clone(), world.objects().get(key)?.clone()))).collect()
        };
        let mut packs = Vec::new();
        for (key, bytes) in unnamed {
            let Some((kind, id)) = names::pack_of(&domain, &key) else { continue };
            let _ = memory.put_once(&key, bytes).await;
            packs.extend(index::read_directory(&sealed, &domain, kind, id).await.ok());
        }
        self.state().objects.clear();
        if packs.is_empty() || index::put_index(&sealed, &domain, &packs).await.is_err() {
            return;
        }
        let listed = sealed.list(&names::indexes(&domain)).await.unwrap_or_default();
        for object in listed {
            if let Ok(bytes) = memory.get(&object.key, u64::MAX).await {
                self.state().objects.insert(object.key, bytes);
            }
        }
    }
}

/// A listed object under a name that means nothing.
fn unnamed(listed: Listed) -> Listed {
    let key = Key::parse(&format!("{}x", listed.key)).unwrap_or(listed.key);
    Listed { key, size: listed.size }
}
