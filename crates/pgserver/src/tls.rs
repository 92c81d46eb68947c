//! TLS as libpq's `sslmode` means it, on rustls with ring.

use std::path::Path;
use std::sync::Arc;

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, Error, RootCertStore, SignatureScheme,
};

use crate::connect::{RootCertificates, TlsMode};
use crate::error::ServerError;

/// The client side of TLS for a mode. With [`TlsMode::Disable`] it is not used.
pub(crate) fn client_config(
    mode: TlsMode,
    roots: Option<&RootCertificates>,
) -> Result<ClientConfig, ServerError> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let trust = match (mode, roots) {
        (TlsMode::Disable | TlsMode::Prefer, _) | (TlsMode::Require, None) => Trust::Anybody,
        (TlsMode::VerifyCa | TlsMode::VerifyFull, None) => {
            return Err(ServerError::Option {
                option: "sslmode".to_owned(),
                problem: "verify-ca and verify-full need root certificates (sslrootcert)"
                    .to_owned(),
            });
        }
        (TlsMode::Require | TlsMode::VerifyCa, Some(roots)) => {
            Trust::roots(roots, Name::Any, &provider)?
        }
        (TlsMode::VerifyFull, Some(roots)) => Trust::roots(roots, Name::Exact, &provider)?,
    };
    let verifier = Verifier { trust, provider: Arc::clone(&provider) };
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| ServerError::Option {
            option: "sslmode".to_owned(),
            problem: error.to_string(),
        })?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier))
        .with_no_client_auth();
    Ok(config)
}

/// Which name a certificate must carry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Name {
    Any,
    Exact,
}

/// Which certificates are good.
#[derive(Debug)]
enum Trust {
    Anybody,
    Roots { chain: Arc<WebPkiServerVerifier>, own: Vec<CertificateDer<'static>>, name: Name },
}

impl Trust {
    fn roots(
        roots: &RootCertificates,
        name: Name,
        provider: &Arc<CryptoProvider>,
    ) -> Result<Self, ServerError> {
        let own = match roots {
            RootCertificates::File(path) => read_certificates(path)?,
            RootCertificates::System => rustls_native_certs::load_native_certs().certs,
        };
        let mut store = RootCertStore::empty();
        store.add_parsable_certificates(own.iter().cloned());
        let chain =
            WebPkiServerVerifier::builder_with_provider(Arc::new(store), Arc::clone(provider))
                .build()
                .map_err(|error| ServerError::Option {
                    option: "sslrootcert".to_owned(),
                    problem: error.to_string(),
                })?;
        Ok(Self::Roots { chain, own, name })
    }
}

fn read_certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, ServerError> {
    let problem = |problem: String| ServerError::File { path: path.to_owned(), problem };
    let found = CertificateDer::pem_file_iter(path)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .map_err(|error| problem(error.to_string()))?;
    if found.is_empty() {
        return Err(problem("there is no certificate in it".to_owned()));
    }
    Ok(found)
}

#[derive(Debug)]
struct Verifier {
    trust: Trust,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let (chain, own, name) = match &self.trust {
            Trust::Anybody => return Ok(ServerCertVerified::assertion()),
            Trust::Roots { chain, own, name } => (chain, own, *name),
        };
        // The server's very certificate is among the roots, as with the usual self-signed one.
        // WebPKI would refuse it, since `openssl req -x509` marks it as an authority.
        if own.iter().any(|root| root.as_ref() == end_entity.as_ref()) {
            if name == Name::Exact {
                let parsed = ParsedCertificate::try_from(end_entity)?;
                rustls::client::verify_server_name(&parsed, server_name)?;
            }
            return Ok(ServerCertVerified::assertion());
        }
        let verdict =
            chain.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now);
        match verdict {
            // The name is looked at last, when the chain has been found good.
            Err(Error::InvalidCertificate(
                CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
            )) if name == Name::Any => Ok(ServerCertVerified::assertion()),
            verdict => verdict,
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls12_signature(message, cert, dss, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls13_signature(message, cert, dss, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn verification_needs_roots() {
        for mode in [TlsMode::VerifyCa, TlsMode::VerifyFull] {
            assert!(client_config(mode, None).is_err(), "{mode:?}");
        }
        assert!(client_config(TlsMode::Require, None).is_ok());
        let missing = RootCertificates::File("/no/such/file".into());
        assert!(client_config(TlsMode::VerifyCa, Some(&missing)).is_err());
        let empty = RootCertificates::File("/dev/null".into());
        let error = client_config(TlsMode::Require, Some(&empty)).unwrap_err();
        assert!(error.to_string().contains("no certificate"), "{error}");
    }
}
