//! A disk that cannot read some of what lies on it.

use std::io;
use std::sync::Arc;

use async_trait::async_trait;
use pgrecall_store::{ErrorKind, Store, StoreError};
use rustix::io::Errno;

use super::calls::CallKind;
use super::hooked::{Call, Hook, Hooked};

/// Fails reads of a part of an object that bring so many bytes or more, as a bad sector does that
/// lies somewhere in them.
#[derive(Debug)]
pub struct BadSector {
    part: &'static str,
    from_bytes: u64,
}

impl BadSector {
    /// In objects whose names have this part.
    pub fn over(inner: Arc<dyn Store>, part: &'static str, from_bytes: u64) -> Arc<Hooked<Self>> {
        Hooked::new(inner, Self { part, from_bytes })
    }
}

#[async_trait]
impl Hook for BadSector {
    async fn after(&self, call: &Call, received_bytes: u64) -> Result<(), StoreError> {
        let reads = matches!(call.kind, CallKind::Get | CallKind::GetRange);
        let reads = reads && call.name.contains(self.part);
        match reads && received_bytes >= self.from_bytes {
            true => Err(call
                .error(ErrorKind::Unavailable, "the disk cannot read it")
                .caused_by(io::Error::from_raw_os_error(Errno::IO.raw_os_error()))),
            false => Ok(()),
        }
    }
}
