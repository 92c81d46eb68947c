//! Making a repository anew where an earlier try was ended.

use super::*;
use pgrecall_store::ErrorKind as Refusal;
use pgrecall_testkit::stores::{Calls, FailNth, Lasting, Meanwhile};

async fn make(store: Arc<dyn Store>, unlock: &Unlock) -> Result<Created, RepoError> {
    Repository::create(store, options(unlock.clone()), &note("db1")).await
}

#[tokio::test]
async fn one_that_was_ended_at_any_request_is_made_by_the_next_try() {
    for nth in 1.. {
        let (store, unlock) = (memory(), key_file());
        let (calls, lasting) = (Calls::all(), Lasting::ForEver);
        let dying = FailNth::over(store.clone(), calls, nth, lasting, Refusal::Denied);
        let ended = make(dying, &unlock).await;
        match make(store.clone(), &unlock).await.unwrap() {
            Created::New(_) => assert!(ended.is_err()),
            Created::Taken(_) => {}
        }
        Repository::open(store, options(unlock)).await.unwrap();
        if ended.is_ok() {
            assert!(nth > 5, "{nth}");
            return;
        }
    }
}

#[tokio::test]
async fn where_more_is_stored_the_key_of_a_lost_root_stays() {
    let (store, unlock) = (memory(), key_file());
    let repository = made(&store, &unlock).await;
    let wrap = names::wrap(repository.opened_by().unwrap());
    store.delete(&names::root()).await.unwrap();
    let before = store.get(&wrap, 1 << 20).await.unwrap();
    let refused = make(store.clone(), &unlock).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Invalid, "{refused}");
    assert_eq!(store.get(&wrap, 1 << 20).await.unwrap(), before);
}

#[tokio::test]
async fn nobody_is_told_of_a_repository_whose_key_is_gone() {
    let mut refused = 0;
    for nth in 1.. {
        let (store, unlock) = (memory(), key_file());
        let beside = store.clone();
        let meanwhile = Meanwhile::over(store.clone(), nth, async move || {
            let listed = beside.list(&names::wraps());
            let wraps: Vec<_> = futures::StreamExt::collect(listed).await;
            for wrap in wraps {
                beside.delete(&wrap.unwrap().key).await.unwrap();
            }
        });
        let made = make(meanwhile.clone(), &unlock).await;
        if !meanwhile.hook().has_happened() {
            break;
        }
        match made {
            Ok(_) => drop(Repository::open(store, options(unlock)).await.unwrap()),
            Err(_) => refused += 1,
        }
    }
    assert!(refused > 1, "{refused}");
}
