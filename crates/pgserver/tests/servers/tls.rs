//! `sslmode`, with certificates made by openssl.

use std::path::{Path, PathBuf};
use std::process::Command;

use pgrecall_pgserver::{
    ChannelBinding, ConnectOptions, Host, Password, RootCertificates, Server, ServerError, TlsMode,
};
use pgrecall_testkit::postgres::{
    Cluster, ClusterOptions, Listen, Scratch, ServerUser, as_server_user, majors,
};

use crate::options;

fn openssl(folder: &Path, args: &str) {
    let mut command = Command::new("openssl");
    command.args(args.split(' ')).current_dir(folder);
    let output = as_server_user(command).output().unwrap();
    assert!(output.status.success(), "{args}: {}", String::from_utf8_lossy(&output.stderr));
}

/// A self-signed certificate for 127.0.0.1, in the usual way.
fn self_signed(folder: &Path, name: &str) {
    openssl(
        folder,
        &format!(
            "req -new -x509 -days 30 -nodes -newkey rsa:2048 -subj /CN=test -addext \
             subjectAltName=IP:127.0.0.1 -keyout {name}.key -out {name}.crt"
        ),
    );
}

/// An authority, and a certificate for 127.0.0.1 that it signed.
fn signed_by_authority(folder: &Path) {
    openssl(
        folder,
        "req -new -x509 -days 30 -nodes -newkey rsa:2048 -subj /CN=authority -keyout ca.key \
         -out ca.crt",
    );
    openssl(
        folder,
        "req -new -nodes -newkey rsa:2048 -subj /CN=server -keyout signed.key -out signed.csr",
    );
    let extensions = folder.join("san.cnf");
    std::fs::write(&extensions, "subjectAltName=IP:127.0.0.1\nbasicConstraints=CA:FALSE\n")
        .unwrap();
    ServerUser::current().own(&extensions);
    openssl(
        folder,
        "x509 -req -in signed.csr -CA ca.crt -CAkey ca.key -CAcreateserial -days 30 -extfile \
         san.cnf -out signed.crt",
    );
}

fn cluster_with(major: u32, folder: &Path, name: &str) -> Cluster {
    let file = |ending: &str| folder.join(format!("{name}.{ending}")).display().to_string();
    let options = ClusterOptions::new(major)
        .listen(Listen::Loopback)
        .setting("ssl", "on")
        .setting("ssl_cert_file", &file("crt"))
        .setting("ssl_key_file", &file("key"));
    let cluster = Cluster::create(options);
    cluster.psql("CREATE ROLE backup LOGIN PASSWORD 'right'");
    let hba = "local all all trust\nhost all all 127.0.0.1/32 scram-sha-256\n";
    std::fs::write(cluster.data_dir().join("pg_hba.conf"), hba).unwrap();
    cluster.restart();
    cluster
}

fn over_tcp(cluster: &Cluster, tls: TlsMode, roots: Option<PathBuf>) -> ConnectOptions {
    let mut options = options(cluster);
    options.host = Host::Tcp("127.0.0.1".to_owned());
    options.user = "backup".to_owned();
    options.password = Some(Password::new("right".to_owned()));
    options.tls = tls;
    options.root_certificates = roots.map(RootCertificates::File);
    options
}

async fn assert_encrypted(cluster: &Cluster, options: &ConnectOptions) {
    let server = Server::connect(options).await.unwrap();
    let sql = "SELECT ssl FROM pg_stat_ssl JOIN pg_stat_activity USING (pid)
                WHERE application_name = 'pgrecall'";
    assert_eq!(cluster.psql(sql), "t", "{options:?}");
    server.close().await;
    cluster.wait_until("the session has ended", || cluster.psql(sql).is_empty());
}

async fn assert_no_trust(options: &ConnectOptions) {
    let error = Server::connect(options).await.unwrap_err();
    assert!(matches!(error, ServerError::Tls { .. }), "{options:?}: {error:?}");
}

#[tokio::test]
async fn a_self_signed_certificate_is_trusted_when_it_is_the_root() {
    for major in majors() {
        let folder = Scratch::new();
        self_signed(folder.path(), "server");
        self_signed(folder.path(), "other");
        let cluster = cluster_with(major, folder.path(), "server");
        let root = Some(folder.path().join("server.crt"));
        let other = Some(folder.path().join("other.crt"));
        for (mode, roots) in [
            (TlsMode::Prefer, None),
            (TlsMode::Require, None),
            (TlsMode::Require, root.clone()),
            (TlsMode::VerifyCa, root.clone()),
            (TlsMode::VerifyFull, root.clone()),
        ] {
            assert_encrypted(&cluster, &over_tcp(&cluster, mode, roots)).await;
        }
        for mode in [TlsMode::Require, TlsMode::VerifyCa, TlsMode::VerifyFull] {
            assert_no_trust(&over_tcp(&cluster, mode, other.clone())).await;
        }
        let mut by_name = over_tcp(&cluster, TlsMode::VerifyFull, root);
        by_name.host = Host::Tcp("localhost".to_owned());
        assert_no_trust(&by_name).await;
        by_name.tls = TlsMode::VerifyCa;
        assert_encrypted(&cluster, &by_name).await;
    }
}

#[tokio::test]
async fn a_certificate_of_an_authority_is_verified() {
    let folder = Scratch::new();
    signed_by_authority(folder.path());
    self_signed(folder.path(), "other");
    let cluster = cluster_with(majors()[0], folder.path(), "signed");
    let root = Some(folder.path().join("ca.crt"));
    assert_encrypted(&cluster, &over_tcp(&cluster, TlsMode::VerifyFull, root.clone())).await;
    let mut by_name = over_tcp(&cluster, TlsMode::VerifyCa, root);
    by_name.host = Host::Tcp("localhost".to_owned());
    assert_encrypted(&cluster, &by_name).await;
    by_name.tls = TlsMode::VerifyFull;
    assert_no_trust(&by_name).await;
    let other = Some(folder.path().join("other.crt"));
    assert_no_trust(&over_tcp(&cluster, TlsMode::VerifyCa, other)).await;
}

#[tokio::test]
async fn channel_binding_works_and_can_be_demanded() {
    let folder = Scratch::new();
    self_signed(folder.path(), "server");
    let cluster = cluster_with(majors()[0], folder.path(), "server");
    let mut options = over_tcp(&cluster, TlsMode::Require, None);
    options.channel_binding = ChannelBinding::Require;
    assert_encrypted(&cluster, &options).await;
    options.tls = TlsMode::Disable;
    let error = Server::connect(&options).await.unwrap_err();
    assert!(matches!(error, ServerError::AuthenticationFailed { .. }), "{error:?}");
    options.channel_binding = ChannelBinding::Prefer;
    options.password = Some(Password::new("wrong".to_owned()));
    let error = Server::connect(&options).await.unwrap_err();
    assert!(matches!(error, ServerError::AuthenticationFailed { .. }), "{error:?}");
}

#[tokio::test]
async fn a_server_without_tls_is_refused_when_tls_is_required() {
    let cluster = Cluster::create(ClusterOptions::new(majors()[0]).listen(Listen::Loopback));
    cluster.psql("CREATE ROLE backup LOGIN");
    Server::connect(&over_tcp(&cluster, TlsMode::Prefer, None)).await.unwrap();
    assert_no_trust(&over_tcp(&cluster, TlsMode::Require, None)).await;
}
