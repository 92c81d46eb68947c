//! What an answer of one of Amazon's services, or of a server like it, or the lack of one, means
//! for a caller, in words: what is the same for all services.
//!
//! Codes: Amazon S3 API reference, "Error responses"; AWS Key Management Service API reference,
//! "Common Errors".

use std::error::Error;

use aws_credential_types::provider::error::CredentialsError;
use aws_sdk_s3::error::{ProvideErrorMetadata, SdkError};
use aws_smithy_runtime_api::client::orchestrator::HttpResponse;
use thiserror::Error;

use crate::error::{Act, ErrorKind, StoreError};
use crate::retry::{Again, Failure};

/// What the server, or the network, said; the lowest level of a chain.
#[derive(Debug, Clone, Error)]
#[error("{0}")]
pub(crate) struct Said(pub(crate) String);

/// A failed request, read.
#[derive(Debug)]
pub(crate) struct Answer {
    /// The HTTP status, when an answer came.
    pub(crate) status: Option<u16>,
    /// The service's own code, such as `NoSuchKey`.
    pub(crate) code: String,
    message: String,
    /// The region that an S3 bucket is in, when the server says so.
    pub(crate) region: Option<String>,
    fate: Fate,
    credentials: Option<Credentials>,
}

/// Why there were no credentials to sign with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Credentials {
    /// None are configured, or what is configured cannot work.
    NotThere,
    /// Whoever gives them out did not answer, or failed: the next time may be better.
    NotNow,
}

impl Credentials {
    /// The cause of an error, if it is one of these.
    fn behind(error: &(dyn Error + 'static)) -> Option<Self> {
        let mut next = Some(error);
        while let Some(error) = next {
            if let Some(error) = error.downcast_ref::<CredentialsError>() {
                return Some(match error {
                    CredentialsError::CredentialsNotLoaded(_)
                    | CredentialsError::InvalidConfiguration(_) => Self::NotThere,
                    _ => Self::NotNow,
                });
            }
            next = error.source();
        }
        None
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    /// The server answered.
    Answered,
    /// It is not known whether the server saw the request.
    Lost,
    /// Nothing was sent.
    Unsent,
}

/// What it means for a caller.
pub(crate) struct Meaning {
    pub(crate) kind: ErrorKind,
    pub(crate) what: String,
    pub(crate) hint: Option<&'static str>,
    pub(crate) again: Again,
}

impl Answer {
    /// Reads an error of the SDK.
    pub(crate) fn read<E>(error: &SdkError<E, HttpResponse>) -> Self
    where
        E: ProvideErrorMetadata + Error + Send + Sync + 'static,
    {
        let raw = error.raw_response();
        let status = raw.map(|response| response.status().as_u16());
        let body = raw.and_then(|response| response.body().bytes()).unwrap_or_default();
        let body = String::from_utf8_lossy(body);
        let header = raw.and_then(|response| response.headers().get("x-amz-bucket-region"));
        let region = header.map(str::to_owned).or_else(|| element(&body, "Region"));
        let meta = match error {
            SdkError::ServiceError(service) => Some(service.err().meta()),
            _ => None,
        };
        let code = meta.and_then(ProvideErrorMetadata::code).map(str::to_owned);
        let message = meta.and_then(ProvideErrorMetadata::message).map(str::to_owned);
        let fate = match error {
            SdkError::ConstructionFailure(_) => Fate::Unsent,
            SdkError::DispatchFailure(failure) if failure.is_user() => Fate::Unsent,
            SdkError::ServiceError(_) | SdkError::ResponseError(_) => Fate::Answered,
            _ => Fate::Lost,
        };
        let message = match fate {
            Fate::Answered => message.or_else(|| element(&body, "Message")).unwrap_or_default(),
            Fate::Lost | Fate::Unsent => chain(error),
        };
        let code = code.or_else(|| element(&body, "Code")).unwrap_or_default();
        let credentials = match fate {
            Fate::Answered => None,
            Fate::Lost | Fate::Unsent => Credentials::behind(error),
        };
        Self { status, code, message, region, fate, credentials }
    }

    /// The failure for a caller, and whether to send again.
    pub(crate) fn told(&self, meaning: Meaning, act: Act, object: impl Into<String>) -> Failure {
        let mut error = StoreError::new(meaning.kind, act, object, meaning.what);
        if !self.message.is_empty() || !self.code.is_empty() {
            error = error.caused_by(Said(self.said()));
        }
        if let Some(hint) = meaning.hint {
            error = error.with_hint(hint);
        }
        Failure { error, again: meaning.again }
    }

    fn said(&self) -> String {
        match (self.code.as_str(), self.message.as_str()) {
            ("", message) => message.to_owned(),
            (code, "") => code.to_owned(),
            (code, message) => format!("{code}: {message}"),
        }
    }

    /// What it means that no answer came.
    pub(crate) fn unanswered(&self) -> Meaning {
        let message = self.message.to_lowercase();
        if message.contains("certificate") {
            let what = "the server's certificate is not trusted";
            return Meaning::stop(ErrorKind::Invalid, what, Some(HINT_CERTIFICATE));
        }
        match self.credentials {
            Some(Credentials::NotThere) => {
                let what = "no credentials could be had";
                return Meaning::stop(ErrorKind::Denied, what, Some(HINT_CREDENTIALS));
            }
            Some(Credentials::NotNow) => {
                let what = "the credentials could not be fetched or renewed";
                return Meaning { hint: Some(HINT_CREDENTIALS), ..Meaning::again(what) };
            }
            None => {}
        }
        match self.fate {
            Fate::Unsent => {
                Meaning::stop(ErrorKind::Invalid, "the request could not be made", None)
            }
            _ => Meaning::again("the server could not be reached, or broke off"),
        }
    }
}

impl Meaning {
    pub(crate) fn stop(
        kind: ErrorKind,
        what: impl Into<String>,
        hint: Option<&'static str>,
    ) -> Self {
        Self { kind, what: what.into(), hint, again: Again::No }
    }

    pub(crate) fn again(what: impl Into<String>) -> Self {
        Self { kind: ErrorKind::Unavailable, what: what.into(), hint: None, again: Again::Yes }
    }
}

const HINT_CREDENTIALS: &str = "Give keys by AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, a profile, \
     or the configuration; and see that the user who runs this can read them.";
const HINT_CERTIFICATE: &str =
    "Name the certificate authority's PEM file in the repository's settings.";

/// What codes mean that every service has.
pub(crate) fn by_common_code(code: &str) -> Option<Meaning> {
    let stop = |kind, what: &str, hint| Some(Meaning::stop(kind, what, hint));
    match code {
        "ExpiredToken" | "ExpiredTokenException" | "TokenRefreshRequired" => {
            let hint = Some("Renew the temporary credentials.");
            stop(ErrorKind::Denied, "the credentials have expired", hint)
        }
        "RequestTimeTooSkewed" | "RequestExpired" => {
            let hint = Some("Set the clock of this machine, by NTP.");
            let what = "the clocks of this machine and of the server differ too much";
            stop(ErrorKind::Denied, what, hint)
        }
        "InvalidAccessKeyId"
        | "InvalidClientTokenId"
        | "InvalidToken"
        | "InvalidSecurity"
        | "UnrecognizedClientException" => stop(
            ErrorKind::Denied,
            "the server does not know these credentials",
            Some(HINT_CREDENTIALS),
        ),
        "SignatureDoesNotMatch" | "InvalidSignatureException" | "IncompleteSignature" => {
            let hint = Some("The secret key is wrong, or a proxy changes requests on their way.");
            stop(ErrorKind::Denied, "the signature is refused", hint)
        }
        "RequestTimeout"
        | "InternalError"
        | "InternalFailure"
        | "SlowDown"
        | "ServiceUnavailable"
        | "Throttling"
        | "ThrottlingException"
        | "RequestLimitExceeded"
        | "Busy" => Some(Meaning::again("the server asks to try again later")),
        _ => None,
    }
}

/// The text of the first XML element of that name.
fn element(xml: &str, name: &str) -> Option<String> {
    let (_, rest) = xml.split_once(&format!("<{name}>"))?;
    let (text, _) = rest.split_once(&format!("</{name}>"))?;
    (text.len() <= 500 && !text.contains('<')).then(|| text.to_owned())
}

/// An error and its causes on one line, each told once.
fn chain(error: &dyn Error) -> String {
    let mut texts: Vec<String> = Vec::new();
    let mut next = Some(error);
    while let Some(error) = next {
        let text = error.to_string();
        if !texts.iter().any(|told| told.contains(&text)) {
            texts.push(text);
        }
        next = error.source();
    }
    texts.join(": ")
}

#[cfg(test)]
mod tests {
    use aws_sdk_s3::operation::put_object::PutObjectError;
    use aws_smithy_runtime_api::client::result::ConnectorError;

    use super::*;

    fn failure(cause: CredentialsError) -> Failure {
        let connector = ConnectorError::other(cause.into(), None);
        let error = SdkError::<PutObjectError, HttpResponse>::dispatch_failure(connector);
        let answer = Answer::read(&error);
        answer.told(answer.unanswered(), Act::Put, "s3://b/x")
    }

    #[test]
    fn a_provider_of_credentials_that_fails_is_asked_again() {
        for cause in [
            CredentialsError::provider_error("connection refused"),
            CredentialsError::provider_timed_out(std::time::Duration::from_secs(1)),
        ] {
            let failure = failure(cause);
            assert_eq!(failure.again, Again::Yes);
            assert_eq!(failure.error.kind(), ErrorKind::Unavailable);
        }
        for cause in [
            CredentialsError::not_loaded("nobody has any"),
            CredentialsError::invalid_configuration("a profile without keys"),
        ] {
            let failure = failure(cause);
            assert_eq!(failure.again, Again::No);
            assert_eq!(failure.error.kind(), ErrorKind::Denied);
        }
    }
}
