//! Every backend keeps the contract of a store, and passes the probe that `init` and `check` trust
//! in.

use std::sync::Arc;

use futures::FutureExt;
use pgrecall_store::{
    DirectoryStore, MemoryStore, Prefix, Promise, RootPolicy, Store, StoreOptions, open, probe,
};
use pgrecall_testkit::conformance;
use pgrecall_testkit::seaweedfs::SeaweedFs;

fn random(bytes: &mut [u8]) {
    getrandom::fill(bytes).unwrap();
}

async fn assert_probe_passes(open: &conformance::Opener) {
    let stores: Vec<Arc<dyn Store>> = futures::future::join_all((0..16).map(|_| open())).await;
    let prefix = Prefix::parse("probes/").unwrap();
    let report = probe(&stores, &prefix, 4, &mut random).await.unwrap();
    assert!(report.is_sound(), "{:?}", report.findings);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn memory_keeps_the_contract() {
    let store = MemoryStore::new();
    let open = move || {
        let store: Arc<dyn Store> = Arc::new(store.clone());
        async move { store }.boxed()
    };
    conformance::run(&open).await;
    assert_probe_passes(&open).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_directory_keeps_the_contract() {
    let root = tempfile::tempdir().unwrap();
    let path = root.path().to_owned();
    let open = move || {
        let path = path.clone();
        async move {
            let store = DirectoryStore::open(path, RootPolicy::MustExist).await.unwrap();
            Arc::new(store) as Arc<dyn Store>
        }
        .boxed()
    };
    conformance::run(&open).await;
    assert_probe_passes(&open).await;
    let temporary = std::fs::read_dir(root.path().join(".tmp")).unwrap().count();
    assert_eq!(temporary, 0, "temporary files are left over");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_real_s3_server_keeps_the_contract() {
    let server = Arc::new(SeaweedFs::start());
    server.create_bucket("bucket");
    let opened = Arc::clone(&server);
    let open = move || {
        let server = Arc::clone(&opened);
        async move { server.open("s3://bucket/some/folder").await }.boxed()
    };
    conformance::run(&open).await;
    assert_probe_passes(&open).await;

    // What lies beside the folder is not seen from within, and the bucket's top is a folder too.
    let other = server.open("s3://bucket").await;
    let key = "some/folder-2/beside".parse().unwrap();
    assert!(matches!(other.put_once(&key, "x".into()).await, pgrecall_store::Put::Created));
    let inner = open().await;
    let listed: Vec<_> =
        futures::TryStreamExt::try_collect(inner.list(&Prefix::root())).await.unwrap();
    let listed: &[pgrecall_store::Listed] = &listed;
    assert!(listed.iter().all(|listed| !listed.key.as_str().contains("beside")));
}

#[tokio::test]
async fn a_missing_bucket_is_not_an_empty_one() {
    use pgrecall_store::{ErrorKind, Key};

    let server = SeaweedFs::start();
    let store = server.open("s3://nobucket/x").await;
    let key: Key = "object".parse().unwrap();
    let listed = futures::StreamExt::next(&mut store.list(&Prefix::root())).await;
    for error in [
        store.get(&key, 10).await.unwrap_err(),
        store.head(&key).await.unwrap_err(),
        listed.expect("an error").unwrap_err(),
    ] {
        assert_eq!(error.kind(), ErrorKind::Invalid, "{error}");
        assert!(error.to_string().contains("bucket does not exist"), "{error}");
    }
}

#[tokio::test]
async fn wrong_keys_are_denied() {
    use pgrecall_store::{ErrorKind, S3Credentials, S3Options, S3Store, SecretText};

    let server = SeaweedFs::start();
    server.create_bucket("bucket");
    for (id, secret) in [("pgrecalltest", "wrong"), ("nobody", "pgrecalltestsecret")] {
        let credentials = S3Credentials::Keys {
            access_key_id: id.to_owned(),
            secret_access_key: SecretText::new(secret),
            session_token: None,
        };
        let options = S3Options { credentials, ..server.options() };
        let store = S3Store::open("s3://bucket", &options, &Default::default()).await.unwrap();
        let error = store.get(&"object".parse().unwrap(), 10).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Denied, "{error}");
    }
}

#[tokio::test]
async fn the_probe_tells_a_store_in_which_everyone_wins() {
    use async_trait::async_trait;
    use pgrecall_testkit::stores::{Call, CallKind, Hook, Hooked};

    /// Deletes before each put: as a store without conditional puts.
    #[derive(Debug)]
    struct Overwrite(MemoryStore);

    #[async_trait]
    impl Hook for Overwrite {
        async fn before(&self, call: &Call) -> Result<(), pgrecall_store::StoreError> {
            match call.kind {
                CallKind::PutOnce | CallKind::PutIfAbsent => {
                    self.0.delete(&call.name.parse().unwrap()).await
                }
                _ => Ok(()),
            }
        }
    }

    let memory = MemoryStore::new();
    let stores: Vec<Arc<dyn Store>> = (0..16)
        .map(|_| Hooked::new(Arc::new(memory.clone()), Overwrite(memory.clone())) as Arc<dyn Store>)
        .collect();
    let report = probe(&stores, &Prefix::root(), 1, &mut random).await.unwrap();
    assert!(report.findings.iter().any(|f| f.promise == Promise::OneWinner), "{report:?}");
}

#[tokio::test]
async fn a_url_opens_its_backend() {
    let root = tempfile::tempdir().unwrap();
    let url = format!("file://{}", root.path().display());
    let store = open(&url, &StoreOptions::default()).await.unwrap();
    assert_eq!(store.url(), url);
    let server = SeaweedFs::start();
    let options = StoreOptions { s3: server.options(), ..StoreOptions::default() };
    let store = open("s3://bucket/x/", &options).await.unwrap();
    assert_eq!(store.url(), "s3://bucket/x");
}

#[tokio::test]
async fn a_private_certificate_authority_is_trusted_only_when_named() {
    use pgrecall_store::{ErrorKind, Key, Put, S3Options, S3Store};

    let server = SeaweedFs::start();
    server.create_bucket("bucket");
    let key: Key = "object".parse().unwrap();
    let open = async |ca_file| {
        let endpoint = Some(server.tls_endpoint());
        let options = S3Options { endpoint, ca_file, ..server.options() };
        S3Store::open("s3://bucket", &options, &Default::default()).await.unwrap()
    };
    let trusting = open(Some(server.ca_file())).await;
    assert!(matches!(trusting.put_once(&key, "body".into()).await, Put::Created));
    assert!(matches!(trusting.put_if_absent(&key, "body".into()).await, Put::Exists));
    assert_eq!(trusting.get(&key, 10).await.unwrap(), "body");

    let wary = open(None).await;
    let error = wary.get(&key, 10).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid, "{error}");
    assert!(error.to_string().contains("certificate is not trusted"), "{error}");
}

/// More names than one answer holds, in an order that is hard on servers which think in folders;
/// some of them gone at the moment, some replaced or deleted after it, some new since.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bucket_is_read_as_it_was() {
    use std::collections::BTreeMap;
    use std::time::{Duration, SystemTime};

    use futures::TryStreamExt as _;
    use pgrecall_store::{ByteRange, ErrorKind, Key, Listed, Put};
    use pgrecall_testkit::s3_user::S3User;
    use pgrecall_testkit::seaweedfs::{ACCESS_KEY_ID, SECRET_ACCESS_KEY};

    const PAUSE: Duration = Duration::from_millis(2100);
    let server = SeaweedFs::start();
    let owner = S3User::new(&server.endpoint(), (ACCESS_KEY_ID, SECRET_ACCESS_KEY), "past");
    owner.create_locked_bucket().await.unwrap();
    let store = server.open("s3://past/some").await;
    let mut was = BTreeMap::new();
    let folders = [("a", 1100), ("a-b", 300), ("a.partial", 10), ("b/c", 10)];
    for (folder, count) in folders {
        for number in 0..count {
            // Beside a name one that goes on after it.
            let end = if number % 2 == 1 { ".partial" } else { "" };
            let key: Key = format!("{folder}/{:04}{end}", number / 2).parse().unwrap();
            let body = format!("{folder} {number}");
            assert!(matches!(store.put_once(&key, body.clone().into()).await, Put::Created));
            was.insert(key, body);
        }
    }
    tokio::time::sleep(PAUSE).await;
    let every_tenth: Vec<Key> = was.keys().step_by(10).cloned().collect();
    for key in every_tenth {
        store.delete(&key).await.unwrap();
        was.remove(&key);
    }
    tokio::time::sleep(PAUSE).await;
    let moment = SystemTime::now();
    tokio::time::sleep(PAUSE).await;
    for (number, key) in was.keys().enumerate() {
        let name = format!("some/{key}");
        match number % 3 {
            0 => owner.put_over(&name, b"evil").await.unwrap(),
            1 => owner.delete(&name, None).await.unwrap(),
            _ => {}
        }
    }
    owner.put_over("some/since/new", b"evil").await.unwrap();

    let s3 = pgrecall_store::S3Options { as_of: Some(moment), ..server.options() };
    let options = StoreOptions { s3, ..StoreOptions::default() };
    let past = open("s3://past/some", &options).await.unwrap();
    // Some before the listing, when nothing is known yet.
    for key in was.keys().step_by(97) {
        assert_eq!(past.get(key, 100).await.unwrap(), was[key].as_bytes(), "{key}");
    }
    let listed: Vec<Listed> = past.list(&Prefix::root()).try_collect().await.unwrap();
    let expected: Vec<Listed> = was
        .iter()
        .map(|(key, body)| Listed { key: key.clone(), size: body.len() as u64 })
        .collect();
    assert!(listed == expected, "{} listed, {} expected", listed.len(), expected.len());
    for (key, body) in was.iter().step_by(41) {
        assert_eq!(past.get(key, 100).await.unwrap(), body.as_bytes(), "{key}");
        let part = past.get_range(key, ByteRange::Last { len: 2 }).await.unwrap();
        assert_eq!(part.bytes, body.as_bytes()[body.len() - 2..], "{key}");
        assert_eq!(past.head(key).await.unwrap().size, body.len() as u64);
    }
    let folders = past.list_folders(&Prefix::root()).await.unwrap();
    let names: Vec<&str> = folders.iter().map(Prefix::as_str).collect();
    assert_eq!(names, ["a-b/", "a.partial/", "a/", "b/"]);
    for gone in ["a/0000", "since/new"] {
        let error = past.get(&gone.parse().unwrap(), 100).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::NotFound, "{gone}: {error}");
    }
    let key = "a/0001".parse().unwrap();
    assert!(matches!(past.put_once(&key, "x".into()).await, Put::Unknown(_)));
    assert_eq!(past.delete(&key).await.unwrap_err().kind(), ErrorKind::Invalid);
    // Elsewhere nothing is left of what was.
    server.create_bucket("plain");
    let error = open("s3://plain", &options).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unsupported, "{error}");
}
