//! What a bucket keeps of what is deleted.

use pgrecall_store::Versions;
use pgrecall_testkit::s3_user::S3User;
use pgrecall_testkit::seaweedfs::{ACCESS_KEY_ID, SECRET_ACCESS_KEY, SeaweedFs};

/// Where versions were kept once, those of deleted keys may still be there: that is not nothing.
#[test]
fn versions_that_are_not_kept_any_more_are_told_from_none() {
    let server = SeaweedFs::start();
    server.create_bucket("backups");
    let owner = S3User::new(&server.endpoint(), (ACCESS_KEY_ID, SECRET_ACCESS_KEY), "backups");
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    runtime.block_on(async {
        let store = server.open("s3://backups/pg").await;
        let kept = async || store.keeping().await.expect("it may be asked").versions;
        assert_eq!(kept().await, Versions::None);
        owner.keep_versions().await.expect("versions are kept");
        assert_eq!(kept().await, Versions::Kept);
        owner.suspend_versioning().await.expect("and no longer");
        assert_eq!(kept().await, Versions::Suspended);
    });
}
