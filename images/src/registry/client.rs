//! One repository, wherever it is: mirrors, then the registry itself.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};

use reqwest::header::{ACCEPT, CONTENT_TYPE, HeaderMap, HeaderValue};
use reqwest::{StatusCode, Url};

use super::auth::Auth;
use super::config::{Endpoint, RegistryConfig, RetryPolicy, Timeouts, Transport};
use super::error::{Again, FailureKind, RequestError, visible};
use super::http::{Answer, Http, Request};
use super::reach::Reach;
use super::retry;
use crate::digest::{Digest, Hasher, Verifier};
use crate::document::ACCEPT as MEDIA_TYPES;
use crate::progress::{Progress, Retry};
use crate::reference::Reference;

/// A client for one repository. Cheap until the first request.
pub(crate) struct Registry {
    pub(super) http: Http,
    pub(super) sites: Vec<Site>,
    pub(super) policy: RetryPolicy,
    /// The first site that has not failed; mirrors before it are not asked again.
    pub(super) preferred: AtomicUsize,
}

/// An endpoint, and what was learned about it.
pub(super) struct Site {
    pub endpoint: Endpoint,
    pub auth: Auth,
    pub scheme: OnceLock<&'static str>,
}

/// A manifest or index as it came, verified.
#[derive(Debug)]
pub(crate) struct Manifest {
    pub bytes: Vec<u8>,
    /// The registry's Content-Type, without parameters.
    pub media_type: Option<String>,
}

impl Registry {
    pub fn new(
        reference: &Reference,
        config: RegistryConfig,
        timeouts: Timeouts,
        policy: RetryPolicy,
    ) -> Result<Self, RequestError> {
        let endpoints = config
            .endpoints(reference)
            .map_err(|e| RequestError::new(FailureKind::Config, e.to_string()))?;
        let sites = endpoints.into_iter().map(|endpoint| Site {
            endpoint,
            auth: Auth::default(),
            scheme: OnceLock::new(),
        });
        Ok(Self {
            http: Http::new(config, timeouts)?,
            sites: sites.collect(),
            policy,
            preferred: AtomicUsize::new(0),
        })
    }

    /// The manifest or index with this digest or, without one, this tag.
    pub async fn manifest(
        &self,
        tag: Option<&str>,
        digest: Option<&Digest>,
        max: usize,
        progress: &dyn Progress,
    ) -> Result<Manifest, RequestError> {
        let named = match (digest, tag) {
            (Some(digest), _) => digest.to_string(),
            (None, tag) => tag.unwrap_or("latest").to_owned(),
        };
        self.attempts("manifest", progress, async |site| {
            let mut headers = HeaderMap::new();
            for media_type in MEDIA_TYPES {
                headers.append(ACCEPT, HeaderValue::from_static(media_type));
            }
            let path = format!("manifests/{named}");
            let answer = site.get(&self.http, &path, headers).await?;
            self.check_ok(&answer)?;
            let header = |name: &str| {
                let value = answer.response.headers().get(name)?;
                value.to_str().ok().map(str::to_owned)
            };
            let stated = header("docker-content-digest");
            let media_type = header(CONTENT_TYPE.as_str());
            let media_type = media_type.map(|t| {
                t.split(';')
                    .next()
                    .unwrap_or_default()
                    .trim()
                    .to_ascii_lowercase()
            });
            let host = answer.host.clone();
            let bytes = self
                .http
                .read(&host, answer.response, max, "manifest")
                .await?;
            verify(&host, &bytes, digest, stated.as_deref())?;
            Ok(Manifest { bytes, media_type })
        })
        .await
    }

    /// A small blob as a whole, verified: the image configuration.
    pub async fn small_blob(
        &self,
        digest: &Digest,
        size: u64,
        max: usize,
        progress: &dyn Progress,
    ) -> Result<Vec<u8>, RequestError> {
        if size > max as u64 {
            let message = format!("the image configuration has {size} bytes, {max} are allowed");
            return Err(RequestError::new(FailureKind::TooLarge, message));
        }
        // The size is below max, which is a usize.
        let max = usize::try_from(size).unwrap_or(max);
        self.attempts("configuration", progress, async |site| {
            let path = format!("blobs/{digest}");
            let answer = site.get(&self.http, &path, HeaderMap::new()).await?;
            self.check_ok(&answer)?;
            let host = answer.host.clone();
            let read = self.http.read(&host, answer.response, max, "configuration");
            let bytes = read.await.map_err(|mut e| {
                if e.kind == FailureKind::TooLarge {
                    e.kind = FailureKind::Digest;
                    e.message = format!("{host} sends more than the {size} bytes of {digest}");
                }
                e
            })?;
            let mut verifier = Verifier::new(digest, size);
            verifier
                .update(&bytes)
                .and_then(|()| verifier.finish())
                .map_err(|e| wrong_content(&host, &format!("the configuration: {e}")))?;
            Ok(bytes)
        })
        .await
    }

    fn check_ok(&self, answer: &Answer) -> Result<(), RequestError> {
        match answer.response.status() {
            StatusCode::OK => Ok(()),
            other => {
                let message = format!("{} answered {other} where 200 was due", answer.host);
                Err(RequestError::new(FailureKind::Protocol, message))
            }
        }
    }

    /// Asks the mirrors once each, then the registry itself as often as the policy says.
    async fn attempts<T>(
        &self,
        what: &str,
        progress: &dyn Progress,
        request: impl AsyncFn(&Site) -> Result<T, RequestError>,
    ) -> Result<T, RequestError> {
        let mut failed = 0;
        loop {
            let at = self.preferred.load(Ordering::Relaxed);
            let site = &self.sites[at.min(self.sites.len() - 1)];
            let error = match request(site).await {
                Ok(value) => return Ok(value),
                Err(error) => error,
            };
            self.after_failure(at, what, &mut failed, error, progress)
                .await?;
        }
    }

    /// Moves on to the next site, or waits before asking the last one again;
    /// or hands the error back when it is the last word.
    pub(super) async fn after_failure(
        &self,
        at: usize,
        what: &str,
        failed: &mut u32,
        error: RequestError,
        progress: &dyn Progress,
    ) -> Result<(), RequestError> {
        let site = &self.sites[at.min(self.sites.len() - 1)];
        if site.endpoint.mirror {
            let name = &site.endpoint.name;
            progress.note(&format!("mirror {name} is passed over: {error}"));
            self.preferred.fetch_max(at + 1, Ordering::Relaxed);
            return Ok(());
        }
        *failed += 1;
        let Some(wait) = retry::wait(&self.policy, *failed, &error) else {
            return Err(retry::give_up(&self.policy, *failed, error));
        };
        progress.retry(&Retry {
            what,
            why: &error.message,
            failed: *failed,
            wait,
        });
        tokio::time::sleep(wait).await;
        Ok(())
    }
}

impl Site {
    /// GETs `path` below the repository, or `/v2/` for an empty one; only a 2xx answer is not an error.
    pub async fn get(
        &self,
        http: &Http,
        path: &str,
        headers: HeaderMap,
    ) -> Result<Answer, RequestError> {
        if let Some(scheme) = self.scheme.get() {
            return self.get_by(http, scheme, path, headers).await;
        }
        let [first, second] = match self.endpoint.transport {
            Transport::Https => {
                let answer = self.get_by(http, "https", path, headers).await;
                let _ = self.scheme.set("https");
                return answer;
            }
            Transport::HttpThenHttps => ["http", "https"],
            Transport::Insecure => ["https", "http"],
        };
        let error = match self.get_by(http, first, path, headers.clone()).await {
            Err(error) if speaks_otherwise(first, &error) => error,
            settled => {
                let _ = self.scheme.set(first);
                return settled;
            }
        };
        match self.get_by(http, second, path, headers).await {
            Err(second) if !more_telling(&error, &second) => Err(error),
            settled => {
                let _ = self.scheme.set(second);
                settled
            }
        }
    }

    async fn get_by(
        &self,
        http: &Http,
        scheme: &'static str,
        path: &str,
        headers: HeaderMap,
    ) -> Result<Answer, RequestError> {
        match self.get_authorized(http, scheme, path, headers).await {
            Ok(answer) => Ok(answer),
            Err(mut error) => {
                error.message = self.auth.scrub(error.message).await;
                Err(error)
            }
        }
    }

    async fn get_authorized(
        &self,
        http: &Http,
        scheme: &'static str,
        path: &str,
        headers: HeaderMap,
    ) -> Result<Answer, RequestError> {
        let Endpoint {
            authority,
            repository,
            ..
        } = &self.endpoint;
        // Without a path it is the registry itself that is asked.
        let below = match path {
            "" => String::new(),
            path => format!("{repository}/{path}"),
        };
        let url = Url::parse(&format!("{scheme}://{authority}/v2/{below}"))
            .map_err(|e| RequestError::new(FailureKind::Config, format!("{authority}: {e}")))?;
        let mut renewed = false;
        loop {
            let used = self.auth.current().await;
            let request = Request {
                url: url.clone(),
                headers: headers.clone(),
                authorization: used.header.clone(),
                reach: Reach::ANYWHERE,
                form: None,
            };
            let answer = http.send(request).await?;
            let status = answer.response.status();
            if status.is_success() {
                return Ok(answer);
            }
            if status == StatusCode::UNAUTHORIZED && !answer.elsewhere && !renewed {
                let headers = answer.response.headers();
                renewed = true;
                if self
                    .auth
                    .renew(http, &self.endpoint, headers, &used, scheme, answer.reach)
                    .await?
                {
                    http.drain(&answer.host, answer.response).await;
                    continue;
                }
            }
            let elsewhere = answer.elsewhere;
            let mut error = http.failure(answer).await;
            if elsewhere && matches!(error.kind, FailureKind::Unauthorized | FailureKind::Denied) {
                // The signature of a storage address runs out; ask for a new one.
                error.kind = FailureKind::Server;
                error.again = Again::Backoff;
            }
            if error.kind == FailureKind::Unauthorized
                && let Some(source) = self.auth.source().await
            {
                let source = visible(&source, 200);
                error.message += &format!(", with the credentials from {source}");
            }
            return Err(error);
        }
    }
}

/// Whether the failure may come from speaking `scheme` to a server that speaks the other.
fn speaks_otherwise(scheme: &str, error: &RequestError) -> bool {
    match error.kind {
        FailureKind::Connection | FailureKind::Tls => true,
        // Go and nginx answer plain HTTP on a TLS port with 400 and a sentence.
        FailureKind::Protocol if scheme == "http" => error.message.contains("HTTPS"),
        _ => false,
    }
}

/// Whether the second scheme's failure says more than the first's: not when
/// nobody answered, or answered in something that is not TLS. A server that
/// said in words that it is the other scheme's is believed.
fn more_telling(first: &RequestError, second: &RequestError) -> bool {
    match second.kind {
        _ if first.kind == FailureKind::Protocol => true,
        FailureKind::Connection | FailureKind::Stalled => false,
        FailureKind::Tls => second.message.contains("peer certificate"),
        _ => true,
    }
}

/// The digest of `bytes` must be the wanted one and the one the registry states.
fn verify(
    host: &str,
    bytes: &[u8],
    wanted: Option<&Digest>,
    stated: Option<&str>,
) -> Result<(), RequestError> {
    let compute = |like: &Digest| {
        let mut hasher = Hasher::new(like.algorithm());
        hasher.update(bytes);
        hasher.finish()
    };
    if let Some(wanted) = wanted {
        let found = compute(wanted);
        if found != *wanted {
            let message = format!("asked for {wanted}, but the manifest's digest is {found}");
            return Err(wrong_content(host, &message));
        }
    }
    if let Some(stated) = stated {
        let stated: Digest = stated.parse().map_err(|_| {
            let message = format!(
                "{host} states a digest that is none: {:?}",
                visible(stated, 100)
            );
            RequestError::new(FailureKind::Protocol, message)
        })?;
        let found = compute(&stated);
        if found != stated {
            let message = format!("it states {stated}, but the manifest's digest is {found}");
            return Err(wrong_content(host, &message));
        }
    }
    Ok(())
}

fn wrong_content(host: &str, why: &str) -> RequestError {
    RequestError::new(
        FailureKind::Digest,
        format!("{host} sent other content: {why}"),
    )
}
