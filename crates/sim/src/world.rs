//! The objects, the requests on their way, and what has happened so far.

use std::collections::hash_map::DefaultHasher;
use std::collections::{BTreeMap, BTreeSet};
use std::hash::Hasher as _;
use std::ops::Bound;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use pgrecall_store::{ErrorKind, Key, Listed, ObjectMeta, Prefix, RangeRead, StoreError};
use tokio::sync::oneshot;

use crate::oracle::{Cause, Oracle};
use crate::request::{Answer, Fate, ProcessId, Request};

/// What a process hears.
pub type Reply = Result<Answer, StoreError>;

/// A request whose process waits for the answer.
#[derive(Debug)]
pub struct Parked {
    /// Who has sent it.
    pub process: ProcessId,
    /// What it asks for.
    pub request: Request,
    ticket: u64,
    reply: oneshot::Sender<Reply>,
}

impl Parked {
    /// Its number among all requests.
    #[must_use]
    pub const fn ticket(&self) -> u64 {
        self.ticket
    }
}

/// A request that nobody waits for any more.
#[derive(Debug, Clone)]
pub struct Late {
    /// Who had sent it.
    pub process: ProcessId,
    /// What it asks for.
    pub request: Request,
    /// Its number among the late ones.
    pub number: u64,
}

/// Everything that processes share.
#[derive(Debug)]
pub struct World {
    objects: BTreeMap<Key, Bytes>,
    medium: Medium,
    /// Seen, but gone when the power is.
    volatile: BTreeSet<Key>,
    /// What was deleted, for planted bugs that do not look.
    buried: BTreeMap<Key, Bytes>,
    parked: Vec<Parked>,
    late: Vec<Late>,
    tickets: u64,
    lates: u64,
    /// What looks at every change.
    pub oracle: Oracle,
    digest: DefaultHasher,
    told: Option<Vec<String>>,
    /// Events so far.
    pub events: u64,
}

/// The world, shared by the connections to it.
#[derive(Debug, Clone)]
pub struct Shared(Arc<Mutex<World>>);

impl Shared {
    /// A world without objects. With `Telling::Full` every event is kept as a line.
    #[must_use]
    pub fn new(oracle: Oracle, medium: Medium, telling: Telling) -> Self {
        Self(Arc::new(Mutex::new(World {
            objects: BTreeMap::new(),
            medium,
            volatile: BTreeSet::new(),
            buried: BTreeMap::new(),
            parked: Vec::new(),
            late: Vec::new(),
            tickets: 0,
            lates: 0,
            oracle,
            digest: DefaultHasher::new(),
            told: (telling == Telling::Full).then(Vec::new),
            events: 0,
        })))
    }

    /// The world, for a moment: never across an await.
    pub fn lock(&self) -> MutexGuard<'_, World> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What kind of store it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Medium {
    /// Over a network: what is there is durable, and requests get lost, late and doubled.
    Remote,
    /// A directory of the same machine: nothing gets lost on the way, but what is seen is durable
    /// only once it was synced.
    Directory,
}

/// Whether events are kept as text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Telling {
    /// Only their digest.
    Digest,
    /// All of them.
    Full,
}

impl World {
    /// Writes an event down.
    pub fn tell(&mut self, line: &str) {
        self.digest.write(line.as_bytes());
        self.events += 1;
        if let Some(told) = &mut self.told {
            told.push(format!("{:>5} {line}", self.events));
        }
    }

    /// A number that tells two runs apart.
    #[must_use]
    pub fn digest(&self) -> u64 {
        self.digest.finish()
    }

    /// The events as text, if they were kept.
    #[must_use]
    pub fn told(&self) -> Vec<String> {
        self.told.clone().unwrap_or_default()
    }

    /// All objects.
    #[must_use]
    pub const fn objects(&self) -> &BTreeMap<Key, Bytes> {
        &self.objects
    }

    /// The medium.
    #[must_use]
    pub const fn medium(&self) -> Medium {
        self.medium
    }

    /// What an object was before it was deleted.
    #[must_use]
    pub fn buried(&self, key: &Key) -> Option<Bytes> {
        self.buried.get(key).cloned()
    }

    /// The machine loses its power: what was not synced is gone.
    pub fn lose_power(&mut self) {
        self.tell("the power fails");
        for key in std::mem::take(&mut self.volatile) {
            if self.objects.remove(&key).is_some() {
                self.tell(&format!("{key} is gone with it"));
                self.oracle.deleted(Cause::PowerLoss, &key);
            }
        }
    }

    /// A process sends a request.
    pub fn park(
        &mut self,
        process: ProcessId,
        request: Request,
    ) -> (u64, oneshot::Receiver<Reply>) {
        let (reply, answer) = oneshot::channel();
        self.tickets += 1;
        self.parked.push(Parked { process, request, ticket: self.tickets, reply });
        (self.tickets, answer)
    }

    /// Its process does not wait any more: it has died, or has given the request up. What can
    /// change something stays on its way.
    pub fn orphan(&mut self, ticket: u64) {
        let Some(place) = self.parked.iter().position(|parked| parked.ticket == ticket) else {
            return;
        };
        let parked = self.parked.remove(place);
        if parked.request.changes() && self.medium == Medium::Remote {
            self.leave_behind(parked.process, parked.request);
        }
    }

    /// A request goes on its way, and nobody waits for it.
    pub fn leave_behind(&mut self, process: ProcessId, request: Request) {
        self.lates += 1;
        self.late.push(Late { process, request, number: self.lates });
    }

    /// The requests that wait, in an order that does not depend on how they came.
    pub fn parked(&mut self) -> &[Parked] {
        self.parked.sort_by_cached_key(|parked| (parked.process, parked.request.to_string()));
        &self.parked
    }

    /// The requests that nobody waits for.
    #[must_use]
    pub fn late(&self) -> &[Late] {
        &self.late
    }

    /// Lets a waiting request, by its place, have its fate.
    pub fn happen(&mut self, place: usize, fate: Fate) {
        let Parked { process, request, reply, .. } = self.parked.remove(place);
        let lost = |what: &str| Err(request.error(ErrorKind::Unavailable, what));
        let (said, answer) = match fate {
            Fate::Done => {
                let answer = self.carry_out(process, &request);
                (outcome(&answer), answer)
            }
            Fate::AnswerLost => {
                let answer = self.carry_out(process, &request);
                (format!("{}, answer lost", outcome(&answer)), lost("the answer is lost"))
            }
            Fate::Late => {
                self.leave_behind(process, request.clone());
                (format!("stays on its way as late {}", self.lates), lost("no answer in time"))
            }
            Fate::Refused => ("refused".to_owned(), lost("slow down")),
            Fate::Doubled => {
                let answer = self.carry_out(process, &request);
                self.leave_behind(process, request.clone());
                (format!("{}, and a copy as late {}", outcome(&answer), self.lates), answer)
            }
        };
        self.tell(&format!("{process} {request}: {said}"));
        // Whoever gave up in this very moment hears nothing.
        let _ = reply.send(answer);
    }

    /// Lets a late request arrive.
    pub fn deliver(&mut self, place: usize) {
        let Late { process, request, number } = self.late.remove(place);
        let answer = self.carry_out(process, &request);
        self.tell(&format!("late {number} of {process} {request}: {}", outcome(&answer)));
    }

    /// Loses a late request for good.
    pub fn lose(&mut self, place: usize) {
        let late = self.late.remove(place);
        self.tell(&format!("late {} of {} is lost", late.number, late.process));
    }

    /// Carries a request out, whatever the scheduler thinks.
    pub fn carry_out(&mut self, process: ProcessId, request: &Request) -> Reply {
        let missing = || request.error(ErrorKind::NotFound, "no such object");
        Ok(match request {
            Request::Put(key, body, _) => {
                if self.objects.contains_key(key) {
                    return Ok(Answer::Exists);
                }
                self.objects.insert(key.clone(), body.clone());
                if self.medium == Medium::Directory {
                    self.volatile.insert(key.clone());
                }
                self.oracle.landed(process, key, body);
                Answer::Created
            }
            Request::Get(key) => {
                Answer::Object(self.objects.get(key).cloned().ok_or_else(missing)?)
            }
            Request::GetRange(key, range) => {
                let whole = self.objects.get(key).ok_or_else(missing)?;
                let object_size = whole.len() as u64;
                let beyond = || request.error(ErrorKind::Invalid, "the range ends beyond 2^64");
                let (offset, len) = range.within(object_size).ok_or_else(beyond)?;
                let (start, len) = (to_usize(offset).min(whole.len()), to_usize(len));
                Answer::Part(RangeRead { bytes: whole.slice(start..start + len), object_size })
            }
            Request::Head(key) => {
                let size = self.objects.get(key).ok_or_else(missing)?.len() as u64;
                Answer::Meta(ObjectMeta { size })
            }
            Request::List(prefix, after, count) => {
                Answer::Page(self.page(prefix, after.as_ref(), *count))
            }
            Request::Folders(prefix) => Answer::Folders(self.folders(prefix)),
            Request::Delete(key) => {
                if let Some(body) = self.objects.remove(key) {
                    self.buried.insert(key.clone(), body);
                    self.oracle.deleted(Cause::By(process), key);
                }
                Answer::Deleted
            }
            Request::Sync(key) => {
                self.volatile.remove(key);
                Answer::Synced
            }
        })
    }

    fn page(&self, prefix: &Prefix, after: Option<&Key>, count: usize) -> Vec<Listed> {
        let from = match after {
            Some(key) => Bound::Excluded(key.as_str()),
            None => Bound::Included(prefix.as_str()),
        };
        self.objects
            .range::<str, _>((from, Bound::Unbounded))
            .take_while(|(key, _)| prefix.contains(key))
            .take(count)
            .map(|(key, bytes)| Listed { key: key.clone(), size: bytes.len() as u64 })
            .collect()
    }

    fn folders(&self, prefix: &Prefix) -> Vec<Prefix> {
        let mut folders: Vec<Prefix> = Vec::new();
        for key in self.objects.keys() {
            let below = key.strip_prefix(prefix).and_then(|rest| rest.split_once('/'));
            let Some(folder) = below.and_then(|(name, _)| prefix.join(name).ok()) else { continue };
            if folders.last() != Some(&folder) {
                folders.push(folder);
            }
        }
        folders
    }
}

fn to_usize(number: u64) -> usize {
    usize::try_from(number).unwrap_or(usize::MAX)
}

fn outcome(reply: &Reply) -> String {
    match reply {
        Ok(Answer::Created) => "created".into(),
        Ok(Answer::Exists) => "exists".into(),
        Ok(Answer::Object(bytes)) => format!("{} bytes", bytes.len()),
        Ok(Answer::Part(part)) => format!("{} bytes", part.bytes.len()),
        Ok(Answer::Meta(meta)) => format!("has {} bytes", meta.size),
        Ok(Answer::Page(page)) => format!("{} names", page.len()),
        Ok(Answer::Folders(folders)) => format!("{} folders", folders.len()),
        Ok(Answer::Deleted) => "deleted".into(),
        Ok(Answer::Synced) => "durable".into(),
        Err(error) => format!("{:?}", error.kind()),
    }
}
