//! Whom to believe: certificate authorities, client certificates, `certs.d`.
//!
//! Reading the system's authorities takes a few milliseconds, so a TLS
//! configuration is made only for a connection that needs it.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};

use super::error::{FailureKind, RequestError};

/// What a connection is verified against.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum Trust {
    /// Plain HTTP: nothing, and no authority is read.
    Nothing,
    /// The system's authorities.
    System,
    /// Those, and what a `certs.d` directory adds.
    Directory(PathBuf),
    /// Anybody, because the administrator said so; client certificates as above.
    Anybody(Option<PathBuf>),
}

/// The `certs.d` directory for the first of `names` that has one.
pub(crate) fn directory(cert_dirs: &[PathBuf], names: &[String]) -> Option<PathBuf> {
    cert_dirs
        .iter()
        .flat_map(|base| names.iter().map(move |name| base.join(name)))
        .find(|dir| dir.is_dir())
}

/// The configuration for `trust`.
pub(crate) fn client_config(
    trust: &Trust,
    bundles: &[PathBuf],
) -> Result<ClientConfig, RequestError> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .map_err(|e| RequestError::new(FailureKind::Tls, format!("TLS cannot be set up: {e}")))?;
    let mut roots = RootCertStore::empty();
    let builder = match trust {
        Trust::Nothing => builder.with_root_certificates(roots),
        Trust::System | Trust::Directory(_) => {
            if let Some(bundle) = bundles.iter().find(|path| path.is_file()) {
                add_bundle(&mut roots, bundle)?;
            }
            if let Trust::Directory(dir) = trust {
                for path in listed(dir, "crt")? {
                    add_authority(&mut roots, &path)?;
                }
            }
            builder.with_root_certificates(roots)
        }
        Trust::Anybody(_) => builder
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(NoVerifier(provider))),
    };
    let dir = match trust {
        Trust::Directory(dir) | Trust::Anybody(Some(dir)) => Some(dir),
        _ => None,
    };
    match dir
        .map(|dir| client_certificate(dir))
        .transpose()?
        .flatten()
    {
        Some((path, chain, key)) => builder
            .with_client_auth_cert(chain, key)
            .map_err(|e| unusable(&path, &e)),
        None => Ok(builder.with_no_client_auth()),
    }
}

/// The system's bundle may hold certificates that rustls has no use for.
fn add_bundle(roots: &mut RootCertStore, path: &Path) -> Result<(), RequestError> {
    let certificates = CertificateDer::pem_file_iter(path).map_err(|e| unusable(path, &e))?;
    roots.add_parsable_certificates(certificates.filter_map(Result::ok));
    Ok(())
}

/// One that the administrator put there must be good.
fn add_authority(roots: &mut RootCertStore, path: &Path) -> Result<(), RequestError> {
    let certificates = CertificateDer::pem_file_iter(path).map_err(|e| unusable(path, &e))?;
    let mut count = 0;
    for certificate in certificates {
        let certificate = certificate.map_err(|e| unusable(path, &e))?;
        roots.add(certificate).map_err(|e| unusable(path, &e))?;
        count += 1;
    }
    match count {
        0 => Err(unusable(path, &"it has no PEM certificate")),
        _ => Ok(()),
    }
}

type ClientCertificate = (
    PathBuf,
    Vec<CertificateDer<'static>>,
    PrivateKeyDer<'static>,
);

fn client_certificate(dir: &Path) -> Result<Option<ClientCertificate>, RequestError> {
    let Some(path) = listed(dir, "cert")?.into_iter().next() else {
        return Ok(None);
    };
    let chain = CertificateDer::pem_file_iter(&path)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .map_err(|e| unusable(&path, &e))?;
    let key_path = path.with_extension("key");
    let key = PrivateKeyDer::from_pem_file(&key_path).map_err(|e| unusable(&key_path, &e))?;
    Ok(Some((path, chain, key)))
}

fn listed(dir: &Path, extension: &str) -> Result<Vec<PathBuf>, RequestError> {
    let entries = std::fs::read_dir(dir).map_err(|e| unusable(dir, &e))?;
    let mut paths: Vec<PathBuf> = entries
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| path.extension().is_some_and(|e| e == extension))
        .collect();
    paths.sort();
    Ok(paths)
}

fn unusable(path: &Path, why: &dyn std::fmt::Display) -> RequestError {
    let message = format!("cannot use {}: {why}", path.display());
    RequestError::new(FailureKind::Config, message)
}

/// Accepts every certificate; handshake signatures are still checked, for they
/// cost nothing and catch broken servers.
#[derive(Debug)]
struct NoVerifier(Arc<CryptoProvider>);

impl ServerCertVerifier for NoVerifier {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        rustls::crypto::verify_tls12_signature(message, certificate, signature, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, certificate, signature, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
