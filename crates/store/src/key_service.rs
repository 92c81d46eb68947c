//! A service that keeps keys and gives none of them away: who may has a few bytes encrypted and
//! decrypted by one.

use std::fmt;

use async_trait::async_trait;
use zeroize::Zeroizing;

use crate::error::StoreError;

/// What a ciphertext is bound to: who decrypts must say the same. It is no secret, and stands in
/// the service's own records.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyContext {
    /// What it is.
    pub name: &'static str,
    /// Which one.
    pub value: String,
}

/// What a service has encrypted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServiceSealed {
    /// The key's full name, by which it is found wherever one asks.
    pub key: String,
    /// The ciphertext.
    pub blob: Vec<u8>,
}

/// One key of such a service.
#[async_trait]
pub trait KeyService: fmt::Debug + Send + Sync {
    /// The key, as it was configured.
    fn key(&self) -> &str;

    /// Whether the key with this full name may be this one, going by the names alone. Nothing is
    /// asked of the service.
    fn may_be(&self, full_name: &str) -> bool;

    /// Encrypts.
    ///
    /// # Errors
    /// When the service refuses, does not know the key, or cannot be reached.
    async fn encrypt(
        &self,
        plain: &[u8],
        context: &KeyContext,
    ) -> Result<ServiceSealed, StoreError>;

    /// Decrypts what was encrypted by this very key in this context; nothing when it was not, or
    /// was changed since.
    ///
    /// # Errors
    /// As [`encrypt`](Self::encrypt).
    async fn decrypt(
        &self,
        blob: &[u8],
        context: &KeyContext,
    ) -> Result<Option<Zeroizing<Vec<u8>>>, StoreError>;
}
