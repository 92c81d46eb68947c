//! The bucket of a test as another host would find it: nothing in it but what a plan needs, and here
//! a configuration written anew, with no cache.

use std::collections::BTreeMap;
use std::sync::Arc;

use futures::TryStreamExt as _;
use pgrecall_store::{Key, MemoryStore, Prefix, Put, Store};

use crate::ground::Ground;
use crate::needed::{configuration, copy_needed};

const URL: &str = "s3://bucket/pg";

/// Takes away what the plan for this target does not need.
pub(crate) fn leave_what_is_planned(ground: &Ground, target: &[&str]) {
    let run = ground.run(&[&["plan", "--json"], target].concat());
    let plan = serde_json::from_str(&run.expect(0, &[]).stdout).expect("JSON");
    let key_file = ground.place().join("main.key");
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let needed = runtime.block_on(async {
        let needed = MemoryStore::new();
        copy_needed(in_memory(&ground.objects()).await, &needed, &key_file, &plan).await;
        needed.list(&Prefix::root()).try_collect::<Vec<_>>().await.expect("a listing")
    });
    let needed: Vec<String> =
        needed.iter().map(|object| format!("pg/{}", object.key.as_str())).collect();
    for name in ground.objects().into_keys().filter(|name| !needed.contains(name)) {
        ground.server().set_object(&name, None);
    }
    let cache = ground.cluster().scratch().path().join("another-cache");
    let text = configuration(&ground.config(), URL, &key_file, &cache);
    std::fs::write(ground.config(), text).expect("a configuration");
}

async fn in_memory(objects: &BTreeMap<String, Vec<u8>>) -> Arc<dyn Store> {
    let store = MemoryStore::new();
    for (name, bytes) in objects {
        let key = name.strip_prefix("pg/").expect("the repository's folder");
        let key = Key::parse(key).expect("a key");
        let put = store.put_if_absent(&key, bytes.clone().into()).await;
        assert!(matches!(put, Put::Created), "{name}: {put:?}");
    }
    Arc::new(store)
}
