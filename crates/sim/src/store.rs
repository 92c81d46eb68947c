//! A process's connection to the world: every request waits until the scheduler lets it happen.

use std::collections::VecDeque;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::{self, BoxStream, StreamExt as _};
use pgrecall_store::{
    Act, ByteRange, ErrorKind, Key, Listed, ObjectMeta, Prefix, Put, RangeRead, Store, StoreError,
};

use crate::door::Door;
use crate::request::{Answer, ProcessId, Request, Sends};
use crate::world::{Medium, Reply, Shared};

/// Requests of one act: then it is given up.
const TRIES_MAX: u32 = 3;

/// A connection.
#[derive(Debug)]
pub struct SimStore {
    world: Shared,
    process: ProcessId,
    waits: Waits,
    page: usize,
    door: Option<Arc<Door>>,
    sent: AtomicU64,
}

/// Whether requests wait for the scheduler.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Waits {
    /// Each of them.
    Yes,
    /// They happen at once, and none fails: for what is no part of the simulation.
    No,
    /// As many happen at once, and all others fail: what a process leaves that dies there.
    Dies(u64),
    /// They happen at once. Of one pack's put, by its number, no answer comes, and it stays on its
    /// way.
    Loses(u64),
}

impl SimStore {
    /// A connection of that process. Listings come in pages of so many names.
    #[must_use]
    pub fn new(world: Shared, process: ProcessId, waits: Waits, page: usize) -> Self {
        Self { world, process, waits, page, door: None, sent: AtomicU64::new(0) }
    }

    /// As a product with a planted bug uses it.
    #[must_use]
    pub fn with_door(self, door: Arc<Door>) -> Self {
        Self { door: Some(door), ..self }
    }

    /// Sends a request and waits for the answer.
    pub async fn send(&self, request: Request) -> Reply {
        match self.waits {
            Waits::Yes => {}
            Waits::Dies(after) if self.sent.fetch_add(1, Ordering::Relaxed) >= after => {
                return Err(request.error(ErrorKind::Denied, "this process is as good as dead"));
            }
            Waits::Loses(number) if is_pack_put(&request) => {
                let mut world = self.world.lock();
                if self.sent.fetch_add(1, Ordering::Relaxed) == number {
                    let lost = request.error(ErrorKind::Unavailable, "no answer in time");
                    world.leave_behind(self.process, request);
                    return Err(lost);
                }
                return world.carry_out(self.process, &request);
            }
            Waits::No | Waits::Dies(_) | Waits::Loses(_) => {
                return self.world.lock().carry_out(self.process, &request);
            }
        }
        let unavailable = request.error(ErrorKind::Unavailable, "the world has ended");
        let (ticket, answer) = self.world.lock().park(self.process, request);
        let _guard = Guard { world: &self.world, ticket };
        answer.await.unwrap_or(Err(unavailable))
    }

    /// Sends it again until an answer came.
    pub async fn ask(&self, request: Request) -> Reply {
        let mut tries = 0;
        loop {
            tries += 1;
            match self.send(request.clone()).await {
                Err(error) if error.kind() == ErrorKind::Unavailable && tries < TRIES_MAX => {}
                answer => return answer,
            }
        }
    }

    async fn through(&self, request: Request) -> Reply {
        match &self.door {
            Some(door) => door.through(self, request).await,
            None => self.plain(request).await,
        }
    }

    /// As a right product's transport does it: puts that must go once are sent once, all else
    /// again until an answer came.
    pub async fn plain(&self, request: Request) -> Reply {
        let name = match &request {
            Request::Put(key, ..) if self.world.lock().medium() == Medium::Directory => {
                Some(key.clone())
            }
            _ => None,
        };
        let answer = self.unsynced(request).await?;
        if let Some(name) = name {
            self.send(Request::Sync(name)).await?;
        }
        Ok(answer)
    }

    /// As [`plain`](Self::plain), and what it has put need not be durable when it is answered.
    pub async fn unsynced(&self, request: Request) -> Reply {
        match request {
            Request::Put(_, _, Sends::Once) => self.send(request).await,
            _ => self.ask(request).await,
        }
    }

    /// The process.
    #[must_use]
    pub const fn process(&self) -> ProcessId {
        self.process
    }

    /// The world.
    #[must_use]
    pub const fn world(&self) -> &Shared {
        &self.world
    }

    async fn put(&self, request: Request) -> Put {
        let odd = request.error(ErrorKind::Internal, "an answer to something else");
        match self.through(request).await {
            Ok(Answer::Created) => Put::Created,
            Ok(Answer::Exists) => Put::Exists,
            Ok(_) => Put::Unknown(odd),
            Err(error) => Put::Unknown(error),
        }
    }
}

fn is_pack_put(request: &Request) -> bool {
    matches!(request, Request::Put(_, _, Sends::Once)) && request.names("/packs/")
}

/// Tells the world when nobody waits for an answer any more.
struct Guard<'a> {
    world: &'a Shared,
    ticket: u64,
}

impl Drop for Guard<'_> {
    fn drop(&mut self) {
        self.world.lock().orphan(self.ticket);
    }
}

fn odd(act: Act, name: impl fmt::Display) -> StoreError {
    StoreError::new(ErrorKind::Internal, act, name.to_string(), "an answer to something else")
}

#[async_trait]
impl Store for SimStore {
    async fn put_if_absent(&self, key: &Key, body: Bytes) -> Put {
        self.put(Request::Put(key.clone(), body, Sends::Often)).await
    }

    async fn put_once(&self, key: &Key, body: Bytes) -> Put {
        self.put(Request::Put(key.clone(), body, Sends::Once)).await
    }

    async fn make_durable(&self, key: &Key) -> Result<(), StoreError> {
        if self.world.lock().medium() == Medium::Directory {
            self.through(Request::Sync(key.clone())).await?;
        }
        Ok(())
    }

    async fn get(&self, key: &Key, limit_bytes: u64) -> Result<Bytes, StoreError> {
        match self.through(Request::Get(key.clone())).await? {
            Answer::Object(bytes) if bytes.len() as u64 <= limit_bytes => Ok(bytes),
            Answer::Object(bytes) => {
                let size = bytes.len() as u64;
                Err(StoreError::too_large(Act::Get, &self.url(), key, size, limit_bytes))
            }
            _ => Err(odd(Act::Get, key)),
        }
    }

    async fn get_range(&self, key: &Key, range: ByteRange) -> Result<RangeRead, StoreError> {
        match self.through(Request::GetRange(key.clone(), range)).await? {
            Answer::Part(part) => Ok(part),
            _ => Err(odd(Act::GetRange, key)),
        }
    }

    async fn head(&self, key: &Key) -> Result<ObjectMeta, StoreError> {
        match self.through(Request::Head(key.clone())).await? {
            Answer::Meta(meta) => Ok(meta),
            _ => Err(odd(Act::Head, key)),
        }
    }

    fn list<'a>(&'a self, prefix: &Prefix) -> BoxStream<'a, Result<Listed, StoreError>> {
        let begin = (prefix.clone(), VecDeque::new(), Some(None));
        stream::try_unfold(begin, move |(prefix, mut page, mut next)| async move {
            loop {
                if let Some(listed) = page.pop_front() {
                    return Ok(Some((listed, (prefix, page, next))));
                }
                let Some(after) = next else { return Ok(None) };
                let request = Request::List(prefix.clone(), after, self.page);
                let Answer::Page(names) = self.through(request).await? else {
                    return Err(odd(Act::List, &prefix));
                };
                let last: Option<&Listed> = names.last();
                let full = names.len() >= self.page;
                next = last.filter(|_| full).map(|listed| Some(listed.key.clone()));
                page = names.into();
            }
        })
        .boxed()
    }

    async fn list_folders(&self, prefix: &Prefix) -> Result<Vec<Prefix>, StoreError> {
        match self.through(Request::Folders(prefix.clone())).await? {
            Answer::Folders(folders) => Ok(folders),
            _ => Err(odd(Act::List, prefix)),
        }
    }

    async fn delete(&self, key: &Key) -> Result<(), StoreError> {
        match self.through(Request::Delete(key.clone())).await? {
            Answer::Deleted => Ok(()),
            _ => Err(odd(Act::Delete, key)),
        }
    }

    fn url(&self) -> String {
        "sim:".to_owned()
    }
}
