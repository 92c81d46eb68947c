//! A server that speaks just enough HTTP/1.1 to be taken for S3, and answers as told: errors, half
//! a body, silence, a closed connection. Or it has a bucket, and fails where it is told to. It
//! counts what arrives.

mod bucket;

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

use bucket::Bucket;
pub use bucket::Meddle;

/// What the server does with one request.
#[derive(Debug, Clone)]
pub enum Reply {
    /// Answers.
    Answer(Answer),
    /// Answers, then closes the connection without having said so.
    AnswerThenClose(Answer),
    /// Sends the headers and the first bytes of the body, then closes the connection.
    HalfBody {
        /// The whole answer.
        answer: Answer,
        /// Bytes of the body that are sent.
        sent_bytes: usize,
    },
    /// Sends the headers and the first bytes of the body, and then nothing more.
    Stall {
        /// The whole answer.
        answer: Answer,
        /// Bytes of the body that are sent.
        sent_bytes: usize,
    },
    /// Reads the request and closes the connection without an answer.
    Close,
    /// Closes the connection after the head of the request, with most of its body unread.
    CloseMidRequest,
    /// Reads the request and never answers.
    Silence,
    /// Waits, then answers.
    Slow(Duration, Answer),
}

/// An HTTP answer.
#[derive(Debug, Clone)]
pub struct Answer {
    /// The status.
    pub status: u16,
    /// Headers beside the length.
    pub headers: Vec<(String, String)>,
    /// The body.
    pub body: Vec<u8>,
}

impl Answer {
    /// An answer with a body.
    #[must_use]
    pub fn new(status: u16, body: impl Into<Vec<u8>>) -> Self {
        Self { status, headers: Vec::new(), body: body.into() }
    }

    /// An error as S3 tells it.
    #[must_use]
    pub fn error(status: u16, code: &str, message: &str) -> Self {
        let body = format!(
            "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n\
             <Error><Code>{code}</Code><Message>{message}</Message></Error>"
        );
        Self::new(status, body).with("Content-Type", "application/xml")
    }

    /// With one more header.
    #[must_use]
    pub fn with(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }
}

/// One request as it arrived.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// The method.
    pub method: String,
    /// The path, with `/bucket` in front.
    pub path: String,
    /// What follows the `?`.
    pub query: String,
    /// The headers, names in lower case.
    pub headers: Vec<(String, String)>,
    /// The body, as far as it was read.
    pub body: Vec<u8>,
    /// Which connection it came on, from 0.
    pub connection: usize,
}

impl Request {
    /// The value of a header.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(n, _)| n == name).map(|(_, value)| value.as_str())
    }
}

/// The running server.
#[derive(Debug)]
pub struct ScriptedS3 {
    port: u16,
    state: Arc<Mutex<State>>,
    task: JoinHandle<()>,
}

#[derive(Debug, Default)]
struct State {
    script: Script,
    requests: Vec<Request>,
    connections: usize,
}

/// Where answers come from.
#[derive(Debug)]
enum Script {
    /// From a list, one after the other.
    Listed(VecDeque<Reply>),
    /// From a bucket.
    Bucket(Bucket),
}

impl Default for Script {
    fn default() -> Self {
        Self::Listed(VecDeque::new())
    }
}

/// What is settled when the head of a request is there.
enum Turn {
    Reply(Reply),
    Bucket(Meddle),
}

impl Script {
    fn turn(&mut self, request: &Request) -> Turn {
        match self {
            Self::Listed(replies) => Turn::Reply(replies.pop_front().unwrap_or_else(|| {
                Reply::Answer(Answer::error(500, "InternalError", "the script is over"))
            })),
            Self::Bucket(bucket) => match (bucket.meddler)(request) {
                Meddle::Instead(reply) => Turn::Reply(reply),
                meddle => Turn::Bucket(meddle),
            },
        }
    }

    fn bucket(&mut self) -> &mut Bucket {
        match self {
            Self::Bucket(bucket) => bucket,
            Self::Listed(_) => panic!("this server has no bucket"),
        }
    }
}

type Shared = Arc<Mutex<State>>;

fn with<T>(state: &Shared, look: impl FnOnce(&mut State) -> T) -> T {
    look(&mut state.lock().unwrap_or_else(PoisonError::into_inner))
}

impl ScriptedS3 {
    /// Starts a server that answers the first requests by the script, in the order in which they
    /// arrive, and all further ones with HTTP 500.
    ///
    /// # Panics
    /// When there is no port to be had.
    pub async fn start(script: impl IntoIterator<Item = Reply>) -> Self {
        Self::serve(Script::Listed(script.into_iter().collect())).await
    }

    /// Starts a server with an empty bucket, which goes by any name.
    ///
    /// # Panics
    /// When there is no port to be had.
    pub async fn with_bucket() -> Self {
        Self::serve(Script::Bucket(Bucket::default())).await
    }

    async fn serve(script: Script) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let state: Shared = Arc::new(Mutex::new(State { script, ..State::default() }));
        let shared = Arc::clone(&state);
        let task = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let shared = Arc::clone(&shared);
                tokio::spawn(async move {
                    let number = with(&shared, |state| {
                        state.connections += 1;
                        state.connections - 1
                    });
                    // A client that goes away in the middle is none of the server's business.
                    let _ = serve(stream, &shared, number).await;
                });
            }
        });
        Self { port, state, task }
    }

    /// Where it listens, `http://127.0.0.1:port`.
    #[must_use]
    pub fn endpoint(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// The requests whose head has arrived so far, the unanswered ones included.
    #[must_use]
    pub fn requests(&self) -> Vec<Request> {
        with(&self.state, |state| state.requests.clone())
    }

    /// How many requests with that method arrived for a path that ends so.
    #[must_use]
    pub fn count(&self, method: &str, path_end: &str) -> usize {
        let of_it = |r: &&Request| r.method == method && r.path.ends_with(path_end);
        with(&self.state, |state| state.requests.iter().filter(of_it).count())
    }

    /// From now on each request to the bucket meets this.
    ///
    /// # Panics
    /// Without a bucket.
    pub fn meddle(&self, meddler: impl FnMut(&Request) -> Meddle + Send + 'static) {
        with(&self.state, |state| state.script.bucket().meddler = Box::new(meddler));
    }

    /// The objects of the bucket.
    ///
    /// # Panics
    /// Without a bucket.
    #[must_use]
    pub fn objects(&self) -> BTreeMap<String, Vec<u8>> {
        with(&self.state, |state| state.script.bucket().objects.clone())
    }

    /// Puts an object into the bucket, or takes it away.
    ///
    /// # Panics
    /// Without a bucket.
    pub fn set_object(&self, name: &str, object: Option<Vec<u8>>) {
        with(&self.state, |state| {
            let objects = &mut state.script.bucket().objects;
            match object {
                Some(object) => objects.insert(name.to_owned(), object),
                None => objects.remove(name),
            }
        });
    }

    /// How many connections were made.
    #[must_use]
    pub fn connections(&self) -> usize {
        with(&self.state, |state| state.connections)
    }
}

impl Drop for ScriptedS3 {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn serve(mut stream: TcpStream, state: &Shared, connection: usize) -> std::io::Result<()> {
    let mut unread = Vec::new();
    loop {
        let Some(mut request) = read_head(&mut stream, &mut unread, connection).await? else {
            return Ok(());
        };
        let (at, turn) = with(state, |state| {
            state.requests.push(request.clone());
            (state.requests.len() - 1, state.script.turn(&request))
        });
        if let Turn::Reply(Reply::CloseMidRequest) = turn {
            return Ok(());
        }
        let len = request.header("content-length").and_then(|len| len.parse().ok()).unwrap_or(0);
        while unread.len() < len {
            if stream.read_buf(&mut unread).await? == 0 {
                return Ok(());
            }
        }
        request.body = unread.drain(..len).collect();
        with(state, |state| state.requests[at].body = request.body.clone());
        let head_only = request.method == "HEAD";
        let reply = match turn {
            Turn::Reply(reply) => reply,
            Turn::Bucket(meddle) => {
                with(state, |state| state.script.bucket().reply(meddle, &request))
            }
        };
        match reply {
            Reply::Answer(answer) => send(&mut stream, &answer, head_only, usize::MAX).await?,
            Reply::AnswerThenClose(answer) => {
                return send(&mut stream, &answer, head_only, usize::MAX).await;
            }
            Reply::HalfBody { answer, sent_bytes } => {
                return send(&mut stream, &answer, head_only, sent_bytes).await;
            }
            Reply::Stall { answer, sent_bytes } => {
                send(&mut stream, &answer, head_only, sent_bytes).await?;
                std::future::pending::<()>().await;
            }
            Reply::Close | Reply::CloseMidRequest => return Ok(()),
            Reply::Silence => std::future::pending::<()>().await,
            Reply::Slow(time, answer) => {
                tokio::time::sleep(time).await;
                send(&mut stream, &answer, head_only, usize::MAX).await?;
            }
        }
    }
}

async fn read_head(
    stream: &mut TcpStream,
    unread: &mut Vec<u8>,
    connection: usize,
) -> std::io::Result<Option<Request>> {
    let end = loop {
        if let Some(at) = unread.windows(4).position(|four| four == b"\r\n\r\n") {
            break at;
        }
        if stream.read_buf(unread).await? == 0 {
            return Ok(None);
        }
    };
    let head: Vec<u8> = unread.drain(..end + 4).collect();
    let head = String::from_utf8_lossy(&head).into_owned();
    let mut lines = head.lines();
    let mut words = lines.next().unwrap_or_default().split(' ');
    let method = words.next().unwrap_or_default().to_owned();
    let target = words.next().unwrap_or_default();
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let headers = lines
        .filter_map(|line| line.split_once(':'))
        .map(|(name, value)| (name.to_lowercase(), value.trim().to_owned()))
        .collect();
    let (path, query) = (path.to_owned(), query.to_owned());
    Ok(Some(Request { method, path, query, headers, body: Vec::new(), connection }))
}

async fn send(
    stream: &mut TcpStream,
    answer: &Answer,
    head_only: bool,
    sent_bytes: usize,
) -> std::io::Result<()> {
    let mut head = format!("HTTP/1.1 {} Scripted\r\n", answer.status);
    if !matches!(answer.status, 204 | 304) {
        head.push_str(&format!("Content-Length: {}\r\n", answer.body.len()));
    }
    for (name, value) in &answer.headers {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    head.push_str("\r\n");
    stream.write_all(head.as_bytes()).await?;
    if !head_only {
        stream.write_all(&answer.body[..answer.body.len().min(sent_bytes)]).await?;
    }
    stream.flush().await
}
