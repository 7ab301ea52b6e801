//! What the caller decides about registries, and where a reference is looked for.
//!
//! Pure values and pure decisions. Everything that other tools take from the
//! environment (proxies, `DOCKER_CONFIG`, `SSL_CERT_FILE`) is handed in here.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use crate::credentials::CredentialSources;
use crate::reference::{DEFAULT_REGISTRY, Reference, canonical_registry, check_repository};

/// How registries are reached.
#[derive(Debug, Clone)]
pub struct RegistryConfig {
    /// What differs for single registries, by the name used in references
    /// (`docker.io`, `registry.example:5000`). The name of a mirror or of a
    /// host that a registry redirects to may be a key as well.
    pub hosts: BTreeMap<String, HostConfig>,
    /// Directories in the `certs.d` layout, first match wins:
    /// `DIR/HOST[:PORT]/*.crt` are further certificate authorities for that
    /// host, `NAME.cert` with `NAME.key` a client certificate.
    pub cert_dirs: Vec<PathBuf>,
    /// Files with the certificate authorities of the system; the first that
    /// exists is read. The default is where distributions keep them.
    pub ca_bundles: Vec<PathBuf>,
    /// Proxies. Loopback addresses are always reached directly.
    pub proxy: ProxyConfig,
    /// Where user names and passwords come from.
    pub credentials: CredentialSources,
    /// The `User-Agent` header.
    pub user_agent: String,
}

impl Default for RegistryConfig {
    fn default() -> Self {
        Self {
            hosts: BTreeMap::new(),
            cert_dirs: Vec::new(),
            ca_bundles: [
                "/etc/ssl/certs/ca-certificates.crt",
                "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
                "/etc/pki/tls/certs/ca-bundle.crt",
                "/var/lib/ca-certificates/ca-bundle.pem",
                "/etc/ssl/ca-bundle.pem",
                "/etc/ssl/cert.pem",
            ]
            .map(PathBuf::from)
            .to_vec(),
            proxy: ProxyConfig::default(),
            credentials: CredentialSources::default(),
            user_agent: concat!("podspawn/", env!("CARGO_PKG_VERSION")).to_owned(),
        }
    }
}

/// What is particular about one registry.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct HostConfig {
    /// HTTPS without verification is tried, then plain HTTP. Whoever is on the
    /// path can read the credentials sent there.
    pub insecure: bool,
    /// Asked before the registry itself, in this order: `HOST[:PORT]`, or
    /// `HOST[:PORT]/PREFIX` where repositories lie below a prefix. Every
    /// failure of a mirror only means the next is asked.
    pub mirrors: Vec<String>,
}

/// Proxies, as `http_proxy`, `https_proxy` and `no_proxy` describe them.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct ProxyConfig {
    /// For `http://` addresses.
    pub http: Option<String>,
    /// For `https://` addresses.
    pub https: Option<String>,
    /// Hosts, domains and networks to reach directly, separated by commas.
    pub no_proxy: Option<String>,
}

impl std::fmt::Debug for ProxyConfig {
    // A proxy's address may hold a password.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ProxyConfig")
            .field("http", &self.http.as_ref().map(|_| "…"))
            .field("https", &self.https.as_ref().map(|_| "…"))
            .field("no_proxy", &self.no_proxy)
            .finish()
    }
}

/// How long anything may take before it counts as failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timeouts {
    /// For a connection, name resolution and TLS handshake included.
    pub connect: Duration,
    /// From sending a request to the headers of its answer.
    pub response: Duration,
    /// For a body to bring at least a kilobyte (or its end).
    pub stall: Duration,
    /// For a manifest, a configuration or a token as a whole.
    pub document: Duration,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(10),
            response: Duration::from_secs(30),
            stall: Duration::from_secs(20),
            document: Duration::from_secs(90),
        }
    }
}

/// When a failed request is sent again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RetryPolicy {
    /// Attempts in all, the first included. A download that brought at least a
    /// megabyte since the last failure starts counting anew.
    pub attempts: u32,
    /// Wait before the second attempt; doubled each time, with jitter.
    pub base: Duration,
    /// Longest such wait.
    pub max: Duration,
    /// Longest wait that a registry's `Retry-After` may ask for.
    pub max_retry_after: Duration,
}

impl Default for RetryPolicy {
    fn default() -> Self {
        Self {
            attempts: 5,
            base: Duration::from_millis(500),
            max: Duration::from_secs(10),
            max_retry_after: Duration::from_secs(60),
        }
    }
}

/// How to speak to a host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Transport {
    /// HTTPS, certificates verified.
    Https,
    /// Plain HTTP; HTTPS where that turns out to be spoken (loopback).
    HttpThenHttps,
    /// HTTPS without verification, else plain HTTP (configured insecure).
    Insecure,
}

/// One place to look for a reference.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Endpoint {
    /// The name that people, credentials and certificates use.
    pub name: String,
    /// The host and port that requests go to.
    pub authority: String,
    /// The repository there.
    pub repository: String,
    pub transport: Transport,
    pub mirror: bool,
}

/// Why a configured mirror is unusable.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a mirror: write HOST, HOST:PORT or HOST/PREFIX")]
pub struct MirrorError(String);

impl RegistryConfig {
    /// The mirrors in order, then the registry itself.
    pub(crate) fn endpoints(&self, reference: &Reference) -> Result<Vec<Endpoint>, MirrorError> {
        let registry = reference.registry();
        let mut endpoints = Vec::new();
        for mirror in self.hosts.get(registry).iter().flat_map(|h| &h.mirrors) {
            let wrong = || MirrorError(mirror.chars().take(100).collect());
            let (host, prefix) = match mirror.split_once('/') {
                Some((host, prefix)) => (host, prefix.trim_end_matches('/')),
                None => (mirror.as_str(), ""),
            };
            let host = canonical_registry(host).map_err(|_| wrong())?;
            let repository = if prefix.is_empty() {
                reference.repository().to_owned()
            } else {
                check_repository(prefix).map_err(|_| wrong())?;
                format!("{prefix}/{}", reference.repository())
            };
            endpoints.push(self.endpoint(&host, repository, true));
        }
        endpoints.push(self.endpoint(registry, reference.repository().to_owned(), false));
        Ok(endpoints)
    }

    pub(super) fn endpoint(&self, name: &str, repository: String, mirror: bool) -> Endpoint {
        // The name in references is historical; the API is elsewhere.
        let authority = match name {
            DEFAULT_REGISTRY => "registry-1.docker.io",
            other => other,
        };
        Endpoint {
            name: name.to_owned(),
            authority: authority.to_owned(),
            repository,
            transport: self.transport(name),
            mirror,
        }
    }

    /// How to speak to `host` (`HOST[:PORT]`).
    pub(crate) fn transport(&self, host: &str) -> Transport {
        if self.is_insecure(host) {
            Transport::Insecure
        } else if is_loopback(host) {
            Transport::HttpThenHttps
        } else {
            Transport::Https
        }
    }

    /// Whether the administrator said that `host` need not be verified.
    pub(crate) fn is_insecure(&self, host: &str) -> bool {
        self.hosts.get(host).is_some_and(|h| h.insecure)
    }

    /// Whether the administrator named `host` at all.
    pub(crate) fn is_known(&self, host: &str) -> bool {
        self.hosts.contains_key(host)
            || self
                .hosts
                .values()
                .flat_map(|h| &h.mirrors)
                .any(|m| m.split('/').next() == Some(host))
    }
}

/// Whether `authority` (`host`, `host:port`, `[v6]:port`) is this machine by
/// its very spelling; no name but `localhost` is.
pub(crate) fn is_loopback(authority: &str) -> bool {
    let host = match authority.strip_prefix('[') {
        Some(rest) => rest.split(']').next().unwrap_or(rest),
        None => authority.split(':').next().unwrap_or(authority),
    };
    host == "localhost" || host.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(hosts: &[(&str, bool, &[&str])]) -> RegistryConfig {
        let hosts = hosts.iter().map(|(name, insecure, mirrors)| {
            let mirrors = mirrors.iter().map(ToString::to_string).collect();
            let insecure = *insecure;
            (name.to_string(), HostConfig { insecure, mirrors })
        });
        RegistryConfig {
            hosts: hosts.collect(),
            ..RegistryConfig::default()
        }
    }

    #[test]
    fn mirrors_come_first_and_may_have_a_prefix() {
        let config = config(&[
            ("docker.io", false, &["m.example:5000", "h.example/hub/"]),
            ("m.example:5000", true, &[]),
        ]);
        let endpoints = config.endpoints(&"ubuntu".parse().unwrap()).unwrap();
        let seen: Vec<_> = endpoints
            .iter()
            .map(|e| (e.authority.as_str(), e.repository.as_str(), e.mirror))
            .collect();
        assert_eq!(
            seen,
            [
                ("m.example:5000", "library/ubuntu", true),
                ("h.example", "hub/library/ubuntu", true),
                ("registry-1.docker.io", "library/ubuntu", false),
            ]
        );
        assert_eq!(endpoints[0].transport, Transport::Insecure);
        assert_eq!(endpoints[1].transport, Transport::Https);
        assert_eq!(endpoints[2].name, "docker.io");
        assert!(config.is_known("h.example") && !config.is_known("x.example"));
    }

    #[test]
    fn a_mirror_that_is_no_host_is_refused() {
        for mirror in ["https://m.example", "", "m.example/UP", "m.example/../x"] {
            let config = config(&[("docker.io", false, &[mirror])]);
            assert!(
                config.endpoints(&"ubuntu".parse().unwrap()).is_err(),
                "{mirror}"
            );
        }
    }

    #[test]
    fn plain_http_is_for_loopback_and_the_configured_only() {
        let config = config(&[("in.example", true, &[])]);
        for host in [
            "localhost",
            "localhost:5000",
            "127.0.0.1:80",
            "127.9.9.9",
            "[::1]:5000",
        ] {
            assert_eq!(config.transport(host), Transport::HttpThenHttps, "{host}");
        }
        for host in [
            "localhost.example",
            "127.0.0.1.example",
            "10.0.0.1:5000",
            "[::2]",
            "[fe80::1]:1",
            "in.example:5000",
            "xlocalhost",
        ] {
            assert_eq!(config.transport(host), Transport::Https, "{host}");
        }
        assert_eq!(config.transport("in.example"), Transport::Insecure);
    }

    #[test]
    fn a_proxy_password_is_not_shown() {
        let proxy = ProxyConfig {
            https: Some("http://u:hunter2@proxy:3128".into()),
            ..ProxyConfig::default()
        };
        assert!(!format!("{proxy:?}").contains("hunter2"));
    }
}
