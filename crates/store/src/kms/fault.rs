//! What an answer of KMS means for a caller, in words.
//!
//! Codes: AWS Key Management Service API reference, "Errors" of Encrypt and Decrypt, and "Common
//! Errors".

use crate::aws::answer::{Answer, Meaning, by_common_code};
use crate::error::{Act, ErrorKind};
use crate::retry::Failure;

impl Answer {
    /// Whether KMS says that it has not encrypted this by this key and in this context.
    pub(super) fn says_not_of_this_key(&self) -> bool {
        matches!(self.code.as_str(), "InvalidCiphertextException" | "IncorrectKeyException")
    }

    /// The failure for a caller, and whether to send again.
    pub(super) fn kms_failure(&self, act: Act, object: &str) -> Failure {
        let meaning = match self.status {
            None => self.unanswered(),
            Some(status) => by_code(&self.code, act).unwrap_or_else(|| by_status(status, act)),
        };
        self.told(meaning, act, object)
    }
}

const HINT_KEY: &str = "Check the key's id, its region and its account: KMS knows keys of its own \
     region alone.";
const HINT_ENDPOINT: &str = "Is the endpoint that of KMS?";

fn denied(act: Act) -> Meaning {
    let hint = match act {
        Act::Encrypt => {
            "The credentials need kms:Encrypt for this key, by IAM and by the key's own policy."
        }
        _ => "The credentials need kms:Decrypt for this key, by IAM and by the key's own policy.",
    };
    Meaning::stop(ErrorKind::Denied, "access is denied", Some(hint))
}

fn by_code(code: &str, act: Act) -> Option<Meaning> {
    let stop = |kind, what: &str, hint| Some(Meaning::stop(kind, what, hint));
    match code {
        "AccessDeniedException" | "AccessDenied" | "KMSAccessDeniedException" => Some(denied(act)),
        // Never NotFound: it is no object of a store that is not there.
        "NotFoundException" => stop(ErrorKind::Invalid, "KMS knows no such key", Some(HINT_KEY)),
        "ValidationException" | "InvalidArnException" => {
            stop(ErrorKind::Invalid, "KMS takes this for no key's name", Some(HINT_KEY))
        }
        "DisabledException" => {
            let hint =
                Some("Enable the key in KMS; until then another key of the repository opens it.");
            stop(ErrorKind::Denied, "the key is disabled", hint)
        }
        "KMSInvalidStateException" => {
            let hint = Some(
                "A key whose deletion is planned can be brought back until the day comes \
                 (CancelKeyDeletion), and never after.",
            );
            stop(ErrorKind::Denied, "the key's state does not allow it", hint)
        }
        "InvalidKeyUsageException" => {
            let hint = Some("It takes a symmetric key, for encryption and decryption.");
            stop(ErrorKind::Invalid, "the key is not for this use", hint)
        }
        "InvalidCiphertextException" | "IncorrectKeyException" => {
            stop(ErrorKind::Corrupt, "it was not encrypted by this key", None)
        }
        "KeyUnavailableException"
        | "DependencyTimeoutException"
        | "KMSInternalException"
        | "LimitExceededException" => Some(Meaning::again("KMS asks to try again later")),
        code => by_common_code(code),
    }
}

fn by_status(status: u16, act: Act) -> Meaning {
    match status {
        200..=299 => Meaning::again("the answer was cut short, or made no sense"),
        401 | 403 => denied(act),
        307 | 408 | 425 | 429 | 500.. => {
            Meaning::again(format!("HTTP {status}: the server cannot do it now"))
        }
        _ => {
            let what = format!("HTTP {status}: refused");
            Meaning::stop(ErrorKind::Invalid, what, Some(HINT_ENDPOINT))
        }
    }
}
