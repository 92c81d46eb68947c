//! A repository that a service's key opens, with a service in memory: what is swapped, changed or
//! made by somebody else opens nothing, and hides nothing that does.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use async_trait::async_trait;
use pgrecall_store::{Act, KeyContext, MemoryStore, Put, ServiceSealed, StoreError};
use zeroize::Zeroizing;

use super::*;
use crate::format::root::RootSuite;
use crate::id::RepositoryId;
use crate::keys::{KeyFile, ServiceSecret, Unlock};
use crate::random::SharedRandom;
use crate::repository::{Cache, Created, KeyNote, Repository};

/// Keys in memory. Its ciphertexts hide nothing, but are bound to key and context, and notice a
/// change.
#[derive(Debug)]
struct Service {
    key: String,
    fails: Mutex<Option<StoreErrorKind>>,
    encrypts_only: AtomicBool,
    decrypted: AtomicUsize,
}

impl Service {
    fn new(key: &str) -> Arc<Self> {
        Arc::new(Self {
            key: key.into(),
            fails: Mutex::default(),
            encrypts_only: AtomicBool::new(false),
            decrypted: AtomicUsize::new(0),
        })
    }

    fn fail(&self, kind: Option<StoreErrorKind>) {
        *self.fails.lock().unwrap() = kind;
    }

    fn may(&self) -> Result<(), StoreError> {
        match *self.fails.lock().unwrap() {
            Some(kind) => Err(StoreError::new(kind, Act::Decrypt, &self.key, "told by the test")),
            None => Ok(()),
        }
    }

    fn mark(&self, context: &KeyContext, plain: &[u8]) -> Vec<u8> {
        let whole = [self.key.as_bytes(), b"|", context.value.as_bytes(), b"|", plain].concat();
        let sum = whole.iter().fold(7u32, |sum, byte| sum.rotate_left(5) ^ u32::from(*byte));
        [context.name.as_bytes(), &sum.to_le_bytes(), plain].concat()
    }
}

#[async_trait]
impl KeyService for Service {
    fn key(&self) -> &str {
        &self.key
    }

    fn may_be(&self, full_name: &str) -> bool {
        self.key.starts_with("alias/") || full_name == self.key
    }

    async fn encrypt(
        &self,
        plain: &[u8],
        context: &KeyContext,
    ) -> Result<ServiceSealed, StoreError> {
        self.may()?;
        Ok(ServiceSealed { key: self.key.clone(), blob: self.mark(context, plain) })
    }

    async fn decrypt(
        &self,
        blob: &[u8],
        context: &KeyContext,
    ) -> Result<Option<Zeroizing<Vec<u8>>>, StoreError> {
        self.decrypted.fetch_add(1, Ordering::SeqCst);
        if self.encrypts_only.load(Ordering::SeqCst) {
            self.fail(Some(StoreErrorKind::Denied));
        }
        self.may()?;
        let plain = blob.get(context.name.len() + 4..).unwrap_or_default();
        let sound = self.mark(context, plain) == blob;
        Ok(sound.then(|| Zeroizing::new(plain.to_vec())))
    }
}

/// Copies in memory.
#[derive(Debug, Default)]
struct Copies(Mutex<std::collections::BTreeMap<String, Vec<u8>>>);

impl Cache for Copies {
    fn get(&self, _: RepositoryId, name: &str) -> Option<Vec<u8>> {
        self.0.lock().unwrap().get(name).cloned()
    }

    fn put(&self, _: RepositoryId, name: &str, object: &[u8]) {
        self.0.lock().unwrap().insert(name.into(), object.into());
    }

    fn forget(&self, _: RepositoryId, name: &str) -> bool {
        self.0.lock().unwrap().remove(name).is_some()
    }
}

fn options(unlock: &Unlock) -> OpenOptions {
    OpenOptions {
        id: None,
        suite: RootSuite::Aes256Gcm,
        fingerprint: None,
        unlock: unlock.clone(),
        random: SharedRandom::system(),
        cache: None,
        restore_keys: Vec::new(),
    }
}

fn note() -> KeyNote {
    KeyNote { label: "db1".into(), now: "2026-11-22T00:00:00Z".into() }
}

async fn made(unlock: &Unlock) -> Repository {
    let store: Arc<dyn Store> = Arc::new(MemoryStore::new());
    match Repository::create(store, options(unlock), &note()).await.unwrap() {
        Created::New(repository) => *repository,
        Created::Taken(root) => panic!("{root:?} stands there already"),
    }
}

fn key_file() -> Unlock {
    Unlock::KeyFile(KeyFile::random(&SharedRandom::system()))
}

async fn open(repository: &Repository, unlock: &Unlock) -> Result<Repository, RepoError> {
    Repository::open(repository.store().clone(), options(unlock)).await
}

async fn stored(repository: &Repository, id: KeyId) -> Wrap {
    let bytes = repository.store().get(&names::wrap(id), WRAP_BYTES_MAX).await.unwrap();
    Wrap::decode(&bytes).unwrap()
}

/// Puts other bytes in an object's place, as who writes to the store may.
async fn replace(repository: &Repository, id: KeyId, bytes: Vec<u8>) {
    let (store, name) = (repository.store(), names::wrap(id));
    store.delete(&name).await.unwrap();
    assert!(matches!(store.put_if_absent(&name, bytes.into()).await, Put::Created));
}

#[tokio::test]
async fn a_service_opens_what_it_was_made_or_added_for() {
    let (first, second) = (Service::new("key/1"), Service::new("key/2"));
    let by_first = Unlock::Kms(first.clone());
    let repository = made(&by_first).await;
    let opened = open(&repository, &by_first).await.unwrap();
    assert_eq!(opened.fingerprint(), repository.fingerprint());
    let by_second = Unlock::Kms(second);
    let error = open(&repository, &by_second).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Denied);
    assert!(error.to_string().contains("no key of the repository is wrapped by it"), "{error}");
    let id = opened.add_key(&by_second, &note()).await.unwrap();
    let opened = open(&repository, &by_second).await.unwrap();
    assert_eq!(opened.opened_by(), Some(id));
    let (_, log) = opened.key_log().await.unwrap();
    let told: Vec<_> =
        log.living.iter().map(|key| (&*key.method, key.kms_key.as_deref())).collect();
    assert_eq!(told, [("kms", Some("key/1")), ("kms", Some("key/2"))]);
    // An alias may be any key: what is another's does not hide the own.
    let alias = Service { key: "alias/x".into(), ..Arc::into_inner(Service::new("")).unwrap() };
    assert!(open(&repository, &Unlock::Kms(Arc::new(alias))).await.is_err());
    let first_id = repository.opened_by().unwrap();
    opened.remove_key(first_id, &by_second).await.unwrap();
    assert_eq!(open(&opened, &by_first).await.unwrap_err().kind(), ErrorKind::Denied);
    let asked = first.decrypted.load(Ordering::SeqCst);
    assert_eq!(asked, 2, "it is tried once and opens once; other keys' are none of its business");
}

#[tokio::test]
async fn a_changed_wrap_opens_nothing_and_hides_no_other() {
    let unlock = Unlock::Kms(Service::new("key/1"));
    let repository = made(&unlock).await;
    let id = repository.opened_by().unwrap();
    let good = stored(&repository, id).await;
    let WrapMethod::Kms { key, blob } = good.method.clone() else { panic!("{good:?}") };
    let mut blobs: Vec<String> = (0..blob.len())
        .step_by(7)
        .map(|at| {
            let digit = if &blob[at..=at] == "0" { "1" } else { "0" };
            [&blob[..at], digit, &blob[at + 1..]].concat()
        })
        .collect();
    blobs.extend([blob[..blob.len() - 2].to_owned(), format!("{blob}00"), "00".into()]);
    let of = |blob| Wrap { method: WrapMethod::Kms { key: key.clone(), blob }, ..good.clone() };
    let mut changed: Vec<Wrap> = blobs.into_iter().map(of).collect();
    changed.push(Wrap { label: "another's".into(), ..good.clone() });
    changed.push(Wrap { salt: good.salt.replace(|c| c != '1', "1"), ..good.clone() });
    let mut last = good.wrapped.clone();
    last.replace_range(..1, if last.starts_with('0') { "1" } else { "0" });
    changed.push(Wrap { wrapped: last, ..good.clone() });
    for wrap in changed {
        replace(&repository, id, wrap.encode()).await;
        let error = open(&repository, &unlock).await.unwrap_err();
        assert!(matches!(error, RepoError::WrongKey { .. }), "{wrap:?}: {error}");
        // Another wrap of the same key.
        let other = repository.add_key(&unlock, &note()).await.unwrap();
        assert_eq!(open(&repository, &unlock).await.unwrap().opened_by(), Some(other));
        repository.store().delete(&names::wrap(other)).await.unwrap();
    }
    for rubbish in [b"{}".to_vec(), vec![b' '; 64 << 10]] {
        replace(&repository, id, rubbish).await;
        let error = open(&repository, &unlock).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Denied, "{error}");
    }
    replace(&repository, id, good.encode()).await;
    assert!(open(&repository, &unlock).await.is_ok());
}

#[tokio::test]
async fn the_wrap_of_another_repository_opens_nothing() {
    let service = Service::new("key/1");
    let unlock = Unlock::Kms(service.clone());
    let (repository, other) = (made(&unlock).await, made(&unlock).await);
    let (id, others) = (repository.opened_by().unwrap(), other.opened_by().unwrap());
    let foreign = Wrap { id, ..stored(&other, others).await };
    replace(&repository, id, foreign.encode()).await;
    assert_eq!(open(&repository, &unlock).await.unwrap_err().kind(), ErrorKind::Denied);
    // Nor where it says that it is this root's: the service itself refuses it.
    let root_sha256 = stored(&other, others).await.root_sha256;
    assert_ne!(foreign.root_sha256, String::new());
    let found = ServiceSecret::of(&foreign, &*service, repository.root().id).await.unwrap();
    assert!(found.is_none(), "decrypted in the context of another repository");
    assert_eq!(foreign.root_sha256, root_sha256);
    // And bits that are this repository's open no wrap that is bound to another root.
    let random = SharedRandom::system();
    let secret = ServiceSecret::new(&*service, repository.root().id, &random).await.unwrap();
    let outline = Wrap::outline(id, String::new(), String::new(), secret.method.clone());
    let key = RepositoryKey::random(&random);
    let wrap = secret.wrap(&key, outline, b"another root", &random).unwrap();
    assert_eq!(secret.unwrap(&wrap, b"another root").unwrap(), Some(key));
    assert_eq!(secret.unwrap(&wrap, &repository.root_bytes).unwrap(), None);
}

/// Whoever may encrypt by the service's key, and write to the store, can make a wrap that opens.
#[tokio::test]
async fn another_repository_key_is_not_believed() {
    let service = Service::new("key/1");
    let unlock = Unlock::Kms(service.clone());
    let repository = made(&unlock).await;
    let random = SharedRandom::system();
    // Listed before the one that it is to take the place of.
    let forged = KeyId::from_bytes([0; 16]);
    let secret = ServiceSecret::new(&*service, repository.root().id, &random).await.unwrap();
    let outline = Wrap::outline(forged, String::new(), String::new(), secret.method.clone());
    let key = RepositoryKey::random(&random);
    let wrap = secret.wrap(&key, outline, &repository.root_bytes, &random).unwrap();
    let name = names::wrap(forged);
    let put = repository.store().put_if_absent(&name, wrap.encode().into()).await;
    assert!(matches!(put, Put::Created));
    let mut pinned = options(&unlock);
    pinned.fingerprint = Some(repository.fingerprint());
    for options in [pinned.clone(), options(&unlock)] {
        let opened = Repository::open(repository.store().clone(), options).await.unwrap();
        assert_eq!(opened.fingerprint(), repository.fingerprint());
    }
    let own = repository.opened_by().unwrap();
    repository.store().delete(&names::wrap(own)).await.unwrap();
    let error = Repository::open(repository.store().clone(), pinned).await.unwrap_err();
    assert!(matches!(error, RepoError::OtherKey { .. }), "{error}");
    // Without a pin the log of keys tells: it is not sealed by that key.
    let error = open(&repository, &unlock).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corrupt, "{error}");
}

#[tokio::test]
async fn a_service_that_fails_is_told_as_what_it_is() {
    let service = Service::new("key/1");
    let unlock = Unlock::Kms(service.clone());
    let repository = made(&unlock).await;
    for (kind, expected) in [
        (StoreErrorKind::Unavailable, ErrorKind::Unavailable),
        (StoreErrorKind::Denied, ErrorKind::Denied),
        (StoreErrorKind::Invalid, ErrorKind::Invalid),
    ] {
        service.fail(Some(kind));
        let error = open(&repository, &unlock).await.unwrap_err();
        assert_eq!(error.kind(), expected);
        assert!(error.to_string().contains("told by the test"), "{error}");
        let error = repository.add_key(&unlock, &note()).await.unwrap_err();
        assert_eq!(error.kind(), expected);
    }
    let (_, log) = repository.key_log().await.unwrap();
    assert_eq!(log.living.len(), 1, "a key that no wrap was made for counts");
    service.fail(None);
    assert!(open(&repository, &unlock).await.is_ok());
}

#[tokio::test]
async fn a_key_that_may_not_decrypt_is_not_added() {
    let repository = made(&key_file()).await;
    let service = Service::new("key/1");
    service.encrypts_only.store(true, Ordering::SeqCst);
    let unlock = Unlock::Kms(service);
    let error = repository.add_key(&unlock, &note()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Denied, "{error}");
    let (_, log) = repository.key_log().await.unwrap();
    let wraps = repository.sealed().list(&names::wraps()).await.unwrap();
    let wraps = wraps.iter().filter(|wrap| wrap.key.parent() == names::wraps()).count();
    assert_eq!((log.living.len(), wraps), (1, 1));
}

#[tokio::test]
async fn a_method_of_a_newer_version_is_told() {
    let unlock = Unlock::Kms(Service::new("key/1"));
    let repository = made(&key_file()).await;
    let id = repository.add_key(&unlock, &note()).await.unwrap();
    let text = String::from_utf8(stored(&repository, id).await.encode()).unwrap();
    let newer = text.replace("\"kms\"", "\"hsm\"");
    assert_ne!(newer, text);
    replace(&repository, id, newer.into_bytes()).await;
    let error = open(&repository, &unlock).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unsupported, "{error}");
}

#[tokio::test]
async fn a_removed_key_of_the_service_can_be_added_again() {
    let (unlock, file) = (Unlock::Kms(Service::new("key/1")), key_file());
    let repository = made(&file).await;
    for _ in 0..4 {
        let id = repository.add_key(&unlock, &note()).await.unwrap();
        assert_eq!(open(&repository, &unlock).await.unwrap().opened_by(), Some(id));
        let left = stored(&repository, id).await.encode();
        repository.remove_key(id, &file).await.unwrap();
        // Credentials that may not delete leave the wrap behind.
        let put = repository.store().put_if_absent(&names::wrap(id), left.into()).await;
        assert!(matches!(put, Put::Created));
        let error = open(&repository, &unlock).await.unwrap_err();
        assert!(error.to_string().contains("was removed"), "{error}");
    }
}

#[tokio::test]
async fn a_copy_of_the_wrap_saves_the_search_and_may_be_out_of_date() {
    let service = Service::new("key/1");
    let unlock = Unlock::Kms(service.clone());
    let repository = made(&unlock).await;
    let id = repository.opened_by().unwrap();
    let copies = Arc::new(Copies::default());
    let open = async || {
        let options = OpenOptions { cache: Some(copies.clone()), ..options(&unlock) };
        Repository::open(repository.store().clone(), options).await
    };
    assert_eq!(open().await.unwrap().opened_by(), Some(id));
    let wrap = stored(&repository, id).await;
    repository.store().delete(&names::wrap(id)).await.unwrap();
    assert_eq!(open().await.unwrap().opened_by(), Some(id), "the copy opens it");
    assert_eq!(service.decrypted.load(Ordering::SeqCst), 3, "tried once, and one for each opening");
    // A copy that opens nothing any more, and what has come since.
    copies.put(
        repository.root().id,
        SERVICE_WRAP_COPY,
        &Wrap { label: "x".into(), ..wrap }.encode(),
    );
    assert!(open().await.is_err());
    let id = repository.add_key(&unlock, &note()).await.unwrap();
    assert_eq!(open().await.unwrap().opened_by(), Some(id));
    service.fail(Some(StoreErrorKind::Unavailable));
    assert_eq!(open().await.unwrap_err().kind(), ErrorKind::Unavailable);
}

#[test]
fn debug_names_the_key_and_shows_no_secret() {
    let unlock = Unlock::Kms(Service::new("key/1"));
    assert_eq!(format!("{unlock:?}"), "Unlock::Kms(key/1)");
}

/// Each `init` that lost a race has left one.
#[tokio::test]
async fn wraps_of_other_roots_cost_no_request_and_hide_nothing() {
    let service = Service::new("key/1");
    let unlock = Unlock::Kms(service.clone());
    let repository = made(&unlock).await;
    let id = repository.opened_by().unwrap();
    let good = stored(&repository, id).await;
    for number in 0..=255 {
        let other = KeyId::from_bytes([number; 16]);
        let wrap = Wrap { id: other, root_sha256: "00".repeat(32), ..good.clone() };
        let put = repository.store().put_if_absent(&names::wrap(other), wrap.encode().into()).await;
        assert!(matches!(put, Put::Created));
    }
    let opened = open(&repository, &unlock).await.unwrap();
    assert_eq!(opened.opened_by(), Some(id));
    assert_eq!(service.decrypted.load(Ordering::SeqCst), 2, "tried once, opened once");
    repository.store().delete(&names::wrap(id)).await.unwrap();
    let error = open(&repository, &unlock).await.unwrap_err();
    assert!(error.to_string().contains("are not what they were"), "{error}");
}
