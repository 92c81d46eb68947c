//! A store with something that looks at each call before and after it.

use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::{self, BoxStream, StreamExt};
use pgrecall_store::{
    ByteRange, ErrorKind, Key, Listed, ObjectMeta, Prefix, Put, RangeRead, Store, StoreError,
};

use super::calls::CallKind;

/// One call of a store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Call {
    /// The method.
    pub kind: CallKind,
    /// The key, or the prefix of a listing.
    pub name: String,
    /// Bytes sent, for puts.
    pub sent_bytes: u64,
}

impl Call {
    /// The error that a wrapper answers this call with.
    #[must_use]
    pub fn error(&self, kind: ErrorKind, what: &str) -> StoreError {
        StoreError::new(kind, self.kind.act(), &self.name, what)
    }
}

/// Looks at calls, and may answer in the store's stead. For puts an error becomes [`Put::Unknown`].
#[async_trait]
pub trait Hook: fmt::Debug + Send + Sync + 'static {
    /// Before the call has any effect; an error is the answer, and the store is never asked.
    async fn before(&self, call: &Call) -> Result<(), StoreError> {
        let _ = call;
        Ok(())
    }

    /// After the store has answered (for a listing: at its end), with the bytes it returned; an
    /// error replaces the answer.
    async fn after(&self, call: &Call, received_bytes: u64) -> Result<(), StoreError> {
        let _ = (call, received_bytes);
        Ok(())
    }
}

/// A store and its hook.
#[derive(Debug)]
pub struct Hooked<H> {
    inner: Arc<dyn Store>,
    hook: H,
}

impl<H: Hook> Hooked<H> {
    /// Puts the hook around the store.
    pub fn new(inner: Arc<dyn Store>, hook: H) -> Arc<Self> {
        Arc::new(Self { inner, hook })
    }

    /// The hook.
    pub fn hook(&self) -> &H {
        &self.hook
    }

    async fn put(&self, call: Call, put: impl Future<Output = Put> + Send) -> Put {
        if let Err(error) = self.hook.before(&call).await {
            return Put::Unknown(error);
        }
        let answer = put.await;
        match self.hook.after(&call, 0).await {
            Ok(()) => answer,
            Err(error) => Put::Unknown(error),
        }
    }

    async fn ask<T>(
        &self,
        call: Call,
        size: impl Fn(&T) -> usize + Send,
        ask: impl Future<Output = Result<T, StoreError>> + Send,
    ) -> Result<T, StoreError> {
        self.hook.before(&call).await?;
        let answer = ask.await;
        let received = answer.as_ref().map_or(0, &size) as u64;
        self.hook.after(&call, received).await?;
        answer
    }
}

fn call(kind: CallKind, name: impl ToString) -> Call {
    Call { kind, name: name.to_string(), sent_bytes: 0 }
}

#[async_trait]
impl<H: Hook> Store for Hooked<H> {
    async fn put_if_absent(&self, key: &Key, body: Bytes) -> Put {
        let sent_bytes = body.len() as u64;
        let call = Call { sent_bytes, ..call(CallKind::PutIfAbsent, key) };
        self.put(call, self.inner.put_if_absent(key, body)).await
    }

    async fn put_once(&self, key: &Key, body: Bytes) -> Put {
        let sent_bytes = body.len() as u64;
        let call = Call { sent_bytes, ..call(CallKind::PutOnce, key) };
        self.put(call, self.inner.put_once(key, body)).await
    }

    async fn make_durable(&self, key: &Key) -> Result<(), StoreError> {
        self.inner.make_durable(key).await
    }

    async fn get(&self, key: &Key, limit_bytes: u64) -> Result<Bytes, StoreError> {
        let ask = self.inner.get(key, limit_bytes);
        self.ask(call(CallKind::Get, key), Bytes::len, ask).await
    }

    async fn get_range(&self, key: &Key, range: ByteRange) -> Result<RangeRead, StoreError> {
        let ask = self.inner.get_range(key, range);
        let size = |read: &RangeRead| read.bytes.len();
        self.ask(call(CallKind::GetRange, key), size, ask).await
    }

    async fn head(&self, key: &Key) -> Result<ObjectMeta, StoreError> {
        self.ask(call(CallKind::Head, key), |_| 0, self.inner.head(key)).await
    }

    fn list<'a>(&'a self, prefix: &Prefix) -> BoxStream<'a, Result<Listed, StoreError>> {
        let call = call(CallKind::List, prefix);
        let inner = self.inner.list(prefix);
        let end = call.clone();
        let after = stream::once(async move { self.hook.after(&end, 0).await.err().map(Err) })
            .filter_map(std::future::ready);
        stream::once(async move {
            match self.hook.before(&call).await {
                Ok(()) => inner.chain(after).boxed(),
                Err(error) => stream::iter([Err(error)]).boxed(),
            }
        })
        .flatten()
        .boxed()
    }

    async fn list_folders(&self, prefix: &Prefix) -> Result<Vec<Prefix>, StoreError> {
        let ask = self.inner.list_folders(prefix);
        self.ask(call(CallKind::ListFolders, prefix), |_| 0, ask).await
    }

    async fn delete(&self, key: &Key) -> Result<(), StoreError> {
        self.ask(call(CallKind::Delete, key), |()| 0, self.inner.delete(key)).await
    }

    fn url(&self) -> String {
        self.inner.url()
    }
}
