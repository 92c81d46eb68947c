//! A stand-in for AWS KMS: moto, a Python program, on a free port of the loopback interface. Its
//! keys lie in its memory, and are gone with the value, or with the test process however it ends.

use std::fs;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;

const READY_TIME_MAX: Duration = Duration::from_secs(120);

/// The region whose keys [`Moto::create_key`] makes.
pub const REGION: &str = "us-east-1";

/// A running server.
#[derive(Debug)]
pub struct Moto {
    folder: TempDir,
    port: u16,
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

/// Someone who may call nothing: id and secret of an access key.
#[derive(Debug, Clone)]
pub struct Stranger {
    /// The access key's id.
    pub access_key_id: String,
    /// Its secret.
    pub secret_access_key: String,
}

impl Moto {
    /// Starts a server and waits until it answers.
    ///
    /// # Panics
    /// When moto is not installed, or does not come up.
    #[must_use]
    pub fn start() -> Self {
        let folder = tempfile::Builder::new().prefix("pgrecall-moto-").tempdir().unwrap();
        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        drop(listener);
        let log = fs::File::create(folder.path().join("log")).unwrap();
        let mut shell = Command::new("sh")
            .args(["-c", GUARD, "moto", "python3", "-m", "moto.server", "-H", "127.0.0.1"])
            .args(["-p", &port.to_string()])
            .env("PYTHONPATH", installed())
            // Nothing that the machine says of real accounts is any of its business.
            .env("AWS_EC2_METADATA_DISABLED", "true")
            .current_dir(folder.path())
            .stdin(Stdio::piped())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap();
        let input = shell.stdin.take().unwrap();
        let mut server = Self { folder, port, running: Some(Running { shell, input }) };
        server.wait_until_ready();
        server
    }

    /// Where it listens, `http://127.0.0.1:port`.
    #[must_use]
    pub fn endpoint(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// Ends it at once.
    pub fn stop(&mut self) {
        let Some(Running { mut shell, input }) = self.running.take() else { return };
        drop(input);
        let _ = shell.wait();
    }

    /// Makes a symmetric key in [`REGION`], and gives its ARN.
    ///
    /// # Panics
    /// When the server refuses.
    #[must_use]
    pub fn create_key(&self) -> String {
        let answer = self.ask("CreateKey", "{}");
        let arn = answer.split("\"Arn\": \"").nth(1).and_then(|rest| rest.split('"').next());
        arn.unwrap_or_else(|| panic!("no key was made: {answer}")).to_owned()
    }

    /// Gives a key an alias, `alias/…`.
    ///
    /// # Panics
    /// When the server refuses.
    pub fn alias(&self, alias: &str, key: &str) {
        let body = format!("{{\"AliasName\":\"{alias}\",\"TargetKeyId\":\"{key}\"}}");
        let answer = self.ask("CreateAlias", &body);
        assert!(answer.contains(" 200 "), "no alias {alias}: {answer}");
    }

    /// From now on each caller needs a right; gives someone who is known, and has none.
    ///
    /// # Panics
    /// When the server refuses.
    #[must_use]
    pub fn ask_for_rights(&self) -> Stranger {
        let made = self.post("iam", "Action=CreateUser&UserName=stranger&Version=2010-05-08");
        assert!(made.contains(" 200 "), "no user was made: {made}");
        let key = self.post("iam", "Action=CreateAccessKey&UserName=stranger&Version=2010-05-08");
        let between = |name: &str| {
            let rest = key.split(&format!("<{name}>")).nth(1)?;
            Some(rest.split('<').next()?.to_owned())
        };
        let access_key_id = between("AccessKeyId").expect("an access key");
        let secret_access_key = between("SecretAccessKey").expect("its secret");
        let reset = self.send("/moto-api/reset-auth", "Content-Type: text/plain\r\n", "0");
        assert!(reset.contains(" 200 "), "rights are not asked for: {reset}");
        Stranger { access_key_id, secret_access_key }
    }

    fn ask(&self, operation: &str, body: &str) -> String {
        let headers = format!(
            "X-Amz-Target: TrentService.{operation}\r\n\
             Content-Type: application/x-amz-json-1.1\r\n{}",
            signed_for("kms")
        );
        self.send("/", &headers, body)
    }

    fn post(&self, service: &str, form: &str) -> String {
        let headers =
            format!("Content-Type: application/x-www-form-urlencoded\r\n{}", signed_for(service));
        self.send("/", &headers, form)
    }

    /// The whole answer, its head included.
    fn send(&self, path: &str, headers: &str, body: &str) -> String {
        self.try_send(path, headers, body).expect("moto answers")
    }

    fn try_send(&self, path: &str, headers: &str, body: &str) -> std::io::Result<String> {
        let mut stream = TcpStream::connect(("127.0.0.1", self.port))?;
        stream.set_read_timeout(Some(Duration::from_secs(60)))?;
        let len = body.len();
        let request = format!(
            "POST {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n{headers}\
             Content-Length: {len}\r\n\r\n{body}"
        );
        stream.write_all(request.as_bytes())?;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer)?;
        Ok(String::from_utf8_lossy(&answer).into_owned())
    }

    /// It loads a service when that is first asked for something, so that is waited for, too.
    fn wait_until_ready(&mut self) {
        let start = Instant::now();
        let headers = format!(
            "X-Amz-Target: TrentService.ListKeys\r\nContent-Type: application/x-amz-json-1.1\r\n{}",
            signed_for("kms")
        );
        while !self.try_send("/", &headers, "{}").is_ok_and(|answer| answer.contains(" 200 ")) {
            let shell = &mut self.running.as_mut().unwrap().shell;
            let ended = shell.try_wait().unwrap();
            assert!(
                ended.is_none() && start.elapsed() < READY_TIME_MAX,
                "moto did not come up ({ended:?}): {}",
                fs::read_to_string(self.folder.path().join("log")).unwrap_or_default(),
            );
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}

impl Drop for Moto {
    fn drop(&mut self) {
        self.stop();
    }
}

/// The server takes any signature; it reads the region and the service out of it.
fn signed_for(service: &str) -> String {
    format!(
        "Authorization: AWS4-HMAC-SHA256 \
         Credential=AKIDEXAMPLE/20261122/{REGION}/{service}/aws4_request, SignedHeaders=host, \
         Signature=0\r\n"
    )
}

/// The packages that `scripts/servers.sh` installs.
fn installed() -> PathBuf {
    let folder = crate::postgres::home::servers_folder().join("moto");
    assert!(folder.is_dir(), "{} is missing: run scripts/servers.sh moto", folder.display());
    folder
}
