//! A real S3 server for tests: SeaweedFS on free ports of the loopback interface, its data in a
//! folder of its own, gone with the value, or with the test process however it ends.

use std::fs;
use std::io::Write;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use pgrecall_store::{RetryOptions, S3Credentials, S3Options, S3Store, SecretText, Store};
use tempfile::TempDir;

/// The access key's id that the server knows.
pub const ACCESS_KEY_ID: &str = "pgrecalltest";
/// The secret that belongs to it.
pub const SECRET_ACCESS_KEY: &str = "pgrecalltestsecret";

/// Another user, named `writer`, who may do what a bucket's policy lets him: id and secret.
pub const WRITER: (&str, &str) = ("pgrecallwriter", "pgrecallwritersecret");

const READY_TIME_MAX: Duration = Duration::from_secs(60);

/// A running server.
#[derive(Debug)]
pub struct SeaweedFs {
    folder: TempDir,
    ports: Vec<u16>,
    running: Option<Running>,
}

/// The server's process, under a shell that ends it as soon as its own input ends: even a test that
/// is killed leaves no server behind.
#[derive(Debug)]
struct Running {
    shell: Child,
    input: ChildStdin,
}

const GUARD: &str = r#""$@" </dev/null & server=$!; read -r line; kill -9 $server; wait $server"#;

impl SeaweedFs {
    /// Starts a server and waits until it answers.
    ///
    /// # Panics
    /// When SeaweedFS is not installed, or does not come up.
    #[must_use]
    pub fn start() -> Self {
        let folder = tempfile::Builder::new().prefix("pgrecall-seaweedfs-").tempdir().unwrap();
        fs::create_dir(folder.path().join("data")).unwrap();
        let identities = format!(
            r#"{{"identities":[{{"name":"test",
            "credentials":[{{"accessKey":"{ACCESS_KEY_ID}","secretKey":"{SECRET_ACCESS_KEY}"}}],
            "actions":["Admin","Read","Write","List","Tagging"]}},{{"name":"writer",
            "credentials":[{{"accessKey":"{}","secretKey":"{}"}}],"actions":[]}}]}}"#,
            WRITER.0, WRITER.1
        );
        fs::write(folder.path().join("s3.json"), identities).unwrap();
        make_certificates(folder.path());
        let mut server = Self { folder, ports: free_ports(9), running: None };
        server.start_again();
        server
    }

    /// Starts it again, on the same ports and data, after [`stop`](Self::stop).
    ///
    /// # Panics
    /// When it does not come up.
    pub fn start_again(&mut self) {
        assert!(self.running.is_none(), "it is running");
        let log = fs::File::create(self.folder.path().join("log")).unwrap();
        let mut shell = Command::new("sh")
            .args(["-c", GUARD, "seaweedfs"])
            .arg(program())
            .arg("server")
            .args(self.arguments())
            .current_dir(self.folder.path())
            .stdin(Stdio::piped())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap();
        let input = shell.stdin.take().unwrap();
        self.running = Some(Running { shell, input });
        self.wait_until_ready();
    }

    /// Ends it at once, as a crash would; its data stays.
    pub fn stop(&mut self) {
        let Some(Running { mut shell, input }) = self.running.take() else { return };
        drop(input);
        let _ = shell.wait();
    }

    /// Where it listens, `http://127.0.0.1:port`.
    #[must_use]
    pub fn endpoint(&self) -> String {
        format!("http://127.0.0.1:{}", self.ports[6])
    }

    /// Where it listens with TLS, `https://127.0.0.1:port`; its certificate is signed by
    /// [`ca_file`](Self::ca_file).
    #[must_use]
    pub fn tls_endpoint(&self) -> String {
        format!("https://127.0.0.1:{}", self.ports[8])
    }

    /// The certificate authority of [`tls_endpoint`](Self::tls_endpoint), which no system trusts.
    #[must_use]
    pub fn ca_file(&self) -> PathBuf {
        self.folder.path().join("ca.pem")
    }

    /// Makes a bucket.
    ///
    /// # Panics
    /// When the server refuses.
    pub fn create_bucket(&self, name: &str) {
        let mut shell = Command::new(program())
            .args(["shell", &format!("-master=127.0.0.1:{}.{}", self.ports[0], self.ports[1])])
            .current_dir(self.folder.path())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut input = shell.stdin.take().unwrap();
        writeln!(input, "s3.bucket.create -name={name}").unwrap();
        drop(input);
        let output = shell.wait_with_output().unwrap();
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(said.contains(&format!("created bucket {name}")), "no bucket {name}: {said}");
    }

    /// How to reach it.
    #[must_use]
    pub fn options(&self) -> S3Options {
        S3Options {
            endpoint: Some(self.endpoint()),
            region: Some("us-east-1".to_owned()),
            credentials: S3Credentials::Keys {
                access_key_id: ACCESS_KEY_ID.to_owned(),
                secret_access_key: SecretText::new(SECRET_ACCESS_KEY),
                session_token: None,
            },
            ..S3Options::default()
        }
    }

    /// Another connection to `s3://bucket/folder`.
    ///
    /// # Panics
    /// When the URL is malformed.
    pub async fn open(&self, url: &str) -> Arc<dyn Store> {
        let store = S3Store::open(url, &self.options(), &RetryOptions::default()).await;
        Arc::new(store.unwrap())
    }

    fn arguments(&self) -> Vec<String> {
        let ports = &self.ports;
        let folder = self.folder.path().display();
        vec![
            "-dir=data".to_owned(),
            "-ip=127.0.0.1".to_owned(),
            "-ip.bind=127.0.0.1".to_owned(),
            format!("-master.port={}", ports[0]),
            format!("-master.port.grpc={}", ports[1]),
            "-master.volumeSizeLimitMB=256".to_owned(),
            format!("-volume.port={}", ports[2]),
            format!("-volume.port.grpc={}", ports[3]),
            "-volume.max=200".to_owned(),
            "-filer".to_owned(),
            format!("-filer.port={}", ports[4]),
            format!("-filer.port.grpc={}", ports[5]),
            format!("-filer.localSocket={folder}/filer.sock"),
            "-s3".to_owned(),
            format!("-s3.port={}", ports[6]),
            format!("-s3.port.grpc={}", ports[7]),
            format!("-s3.localSocket={folder}/s3.sock"),
            format!("-s3.port.https={}", ports[8]),
            "-s3.cert.file=server.pem".to_owned(),
            "-s3.key.file=server.key".to_owned(),
            "-s3.config=s3.json".to_owned(),
            "-s3.iam=false".to_owned(),
            "-s3.autoCreateBucket=false".to_owned(),
            "-s3.port.iceberg=0".to_owned(),
            "-s3.port.lance=0".to_owned(),
        ]
    }

    /// It is ready when the S3 gateway listens and has found its filer, which it logs no line
    /// about: the shell's list of buckets goes through the same parts.
    fn wait_until_ready(&mut self) {
        let start = Instant::now();
        while !self.answers() {
            let shell = &mut self.running.as_mut().unwrap().shell;
            let ended = shell.try_wait().unwrap();
            assert!(
                ended.is_none() && start.elapsed() < READY_TIME_MAX,
                "SeaweedFS did not come up ({ended:?}): {}",
                fs::read_to_string(self.folder.path().join("log")).unwrap_or_default(),
            );
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// Whether an unsigned request is refused as only a working gateway does.
    fn answers(&self) -> bool {
        let Ok(mut gateway) = std::net::TcpStream::connect(("127.0.0.1", self.ports[6])) else {
            return false;
        };
        let time = Some(Duration::from_secs(2));
        gateway.set_read_timeout(time).unwrap();
        let request = "GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n";
        let mut answer = String::new();
        gateway.write_all(request.as_bytes()).is_ok()
            && std::io::Read::read_to_string(&mut gateway, &mut answer).is_ok()
            && answer.starts_with("HTTP/1.1 403")
    }
}

impl Drop for SeaweedFs {
    fn drop(&mut self) {
        self.stop();
    }
}

/// The program that `scripts/servers.sh` installs.
fn program() -> PathBuf {
    let root = std::env::var_os("PGRECALL_TEST_SERVERS").map(PathBuf::from).unwrap_or_else(|| {
        if rustix::process::getuid().is_root() {
            return PathBuf::from("/var/lib/pgrecall-test");
        }
        let cache = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from).unwrap_or_else(|| {
            PathBuf::from(std::env::var_os("HOME").expect("HOME is set")).join(".cache")
        });
        cache.join("pgrecall-test")
    });
    let program = root.join("seaweedfs/weed");
    assert!(
        program.is_file(),
        "{} is missing: run scripts/servers.sh seaweedfs",
        program.display()
    );
    program
}

/// An authority of the test's own, and a certificate for 127.0.0.1 that it signs.
fn make_certificates(folder: &Path) {
    fs::write(folder.join("server.ext"), "subjectAltName=IP:127.0.0.1").unwrap();
    let steps = [
        "req -x509 -newkey rsa:2048 -nodes -days 30 -subj /CN=test-authority \
         -keyout ca.key -out ca.pem",
        "req -newkey rsa:2048 -nodes -subj /CN=127.0.0.1 -keyout server.key -out server.csr",
        "x509 -req -in server.csr -CA ca.pem -CAkey ca.key -CAcreateserial \
         -days 30 -extfile server.ext -out server.pem",
    ];
    for step in steps {
        let mut openssl = Command::new("openssl");
        let output = openssl.args(step.split(' ')).current_dir(folder).output();
        let output = output.expect("openssl is installed");
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "openssl {step}: {said}");
    }
}

/// Ports that nobody listens on, all different.
fn free_ports(count: usize) -> Vec<u16> {
    let listeners: Vec<TcpListener> =
        (0..count).map(|_| TcpListener::bind(("127.0.0.1", 0)).unwrap()).collect();
    listeners.iter().map(|listener| listener.local_addr().unwrap().port()).collect()
}
